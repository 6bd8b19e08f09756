"""What the documentation says of the commands is what they are."""

import re
import sys

import torch
from error_messages import messages
from helpers import ROOT
from PIL import Image

from idea_core import Identity
from idea_core.headless.cli import idea
from idea_core.headless.cli.published import PUBLISHED, translated
from miniature.images import to_photo
from miniature.people import held_out_people
from miniature.world import BASE, FACES, draw_photos, photos_of

sys.path.append(str(ROOT / "tools"))

import cli
import settings_tables


def options_of(command: str) -> set[str]:
    return {flag for parameter in idea.commands[command].params for flag in parameter.opts + parameter.secondary_opts}


def test_the_reference_is_the_commands_own_help():
    page = (ROOT / "docs" / "cli.md").read_text("utf-8")
    assert page == cli.render(), "Write it anew: python tools/cli.py > docs/cli.md"


def test_the_tables_of_settings_are_the_settings_own():
    page = (ROOT / "docs" / "training.md").read_text("utf-8")
    assert "| `kv_lr` | 0.005 | ≥ 0 |" in page
    assert page == settings_tables.render(page), "Write them anew: python tools/settings_tables.py"


def test_the_table_of_published_options_names_real_ones():
    page = (ROOT / "docs" / "published-commands.md").read_text("utf-8")
    rows = re.findall(r"^\| (`--.*?) \| (.*?) \| ", page, re.MULTILINE)
    assert len(rows) > 35
    for published, ours in rows:
        command = re.match(r"`idea (\w+) ", ours)
        assert command or ours == "–", published
        if command:
            assert set(re.findall(r"--[\w-]+", ours)) <= options_of(command[1]), published


def test_published_options_that_are_marked_are_accepted():
    page = (ROOT / "docs" / "published-commands.md").read_text("utf-8")
    marked: dict[str, set[str]] = {"train": set(), "generate": set()}
    for published, command, ours in re.findall(r"^\| (`--.*?) \| `idea (\w+) (--[\w-]+)` \| ", page, re.MULTILINE):
        for name in re.findall(r"--(\w+)` ✓", published):
            marked[command].add(name)
            for spelled in (name, name.replace("_", "-")):
                (flag,) = translated([f"--{spelled}"], command)
                (option,) = (one for one in idea.commands[command].params if flag in one.opts)
                assert ours in option.opts, name
    assert all(PUBLISHED[command].keys() < marked[command] for command in marked)
    assert len(marked["train"]) > 20 and len(marked["generate"]) == 10


def test_commands_in_the_documentation_parse():
    pages = [ROOT / "README.md", *(ROOT / "docs" / f"{page}.md" for page in ("published-commands", "real-checkpoints"))]
    lines = [line for page in pages for line in re.findall(r"^idea .*$", page.read_text("utf-8"), re.MULTILINE)]
    assert len(lines) >= 4
    for line in lines:
        name = line.split()[1]
        assert set(re.findall(r" (--[\w-]+)", line)) <= options_of(name), line


def test_the_python_example_runs(tmp_path, monkeypatch):
    """README's own lines, with files of the drawn world in place of a checkpoint, face models and photos."""
    photos, packs = tmp_path / "photos" / "alice", tmp_path / "models" / "insightface" / "models"
    photos.mkdir(parents=True)
    packs.mkdir(parents=True)
    random = torch.Generator().manual_seed(1)
    for number, photo in enumerate(photos_of(held_out_people(1)[0], draw_photos(2, random), random)):
        Image.fromarray(to_photo(photo)).save(photos / f"{number}.png")
    (tmp_path / "sd15.safetensors").symlink_to(BASE)
    (packs / "antelopev2").symlink_to(FACES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    example = re.search(r"<!-- python example -->\n```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)[
        1
    ]
    for size, smaller in (("steps=25", "steps=2"), ("resolution=512", "resolution=64"), ("count=4", "count=2")):
        assert size in example
        example = example.replace(size, smaller)
    exec(example, {})
    assert Identity.load("alice.safetensors").trigger == "<alice>"
    for seed in (0, 1):
        with Image.open(f"alice_{seed}.png") as image:
            assert image.size == (64, 64)


def test_troubleshooting_quotes_every_error_message_as_it_is():
    page = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    said = {message for *_, message in messages(ROOT)}
    quoted = set(re.findall(r"`(Expected [^`]*)`", page)) | set(re.findall(r"``(Expected .*?)``", page))
    assert len(said) > 140
    assert not said - quoted, "These are not in docs/troubleshooting.md."
    assert not quoted - said, "Nothing says these."
