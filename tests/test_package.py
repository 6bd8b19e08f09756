"""What ships with the package, and what importing it needs."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import ROOT

from idea_core import __version__, celebrity_names
from idea_core.method.anchor import parse_names


def test_the_version_stands_in_one_place():
    assert f'\nversion = "{__version__}"\n' in (ROOT / "pyproject.toml").read_text("utf-8")
    first = re.search(r"^## \[(.+)\] - (Unreleased|\d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert first[1] == __version__


def test_the_linter_has_one_version():
    locked = re.search(r"^ruff==(\S+)", (ROOT / "tests" / "requirements.lock").read_text("utf-8"), re.M)
    assert f"rev: v{locked[1]}\n" in (ROOT / ".pre-commit-config.yaml").read_text("utf-8")


def test_the_list_of_names():
    names = celebrity_names()
    assert len(names) >= 500
    assert len(set(names)) == len(names)
    assert list(names) == sorted(names)
    assert all(re.fullmatch(r"\S+( \S+){1,3}", name) and name.isascii() for name in names)


def test_a_list_or_phrase_of_ones_own():
    assert parse_names("Ada Lovelace\n\n  Alan Turing \n") == ("Ada Lovelace", "Alan Turing")
    assert parse_names("human face") == ("human face",)
    assert parse_names(" \n ") == celebrity_names()


HEADLESS = ("headless", "evaluation")  # the front end without ComfyUI
PICTURES = ("photos", "pictures", "plot")  # use PIL, and are imported by who reads or draws
HEAVY = ("comfy", "folder_paths", "diffusers", "transformers", "insightface", "onnxruntime", "onnx", "cv2", "PIL")


def test_the_core_imports_no_heavy_package():
    files = [path.relative_to(ROOT) for path in (ROOT / "idea_core").rglob("*.py")]
    files = [path for path in files if path.parts[1] not in HEADLESS and path.stem not in PICTURES]
    modules = [".".join(path.with_suffix("").parts) for path in files]
    code = f"import sys; sys.modules.update(dict.fromkeys({HEAVY!r})); import {', '.join(modules)}"
    subprocess.run([sys.executable, "-c", code.replace(".__init__", "")], cwd=ROOT, check=True)


def test_the_nodes_import_nothing_of_the_front_end_without_comfyui():
    sources = [path.read_text("utf-8") for path in [ROOT / "__init__.py", *(ROOT / "nodes").rglob("*.py")]]
    assert len(sources) > 10
    assert not [word for word in HEADLESS for source in sources if f"idea_core.{word}" in source]


ROOMS = (
    *("errors", "version", "quiet", "images", "settings", "families", "files", "diffusion", "text", "method"),
    *("faces", "identity", "training", "enhancers", "evaluation", "headless", ""),
)  # as ARCHITECTURE.md has them; the last is the package itself


def _imports(path: Path) -> Iterator[str]:
    """Rooms of `idea_core` that a module of it imports, at any place."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            names = [node.module] if node.module else [alias.name for alias in node.names]
            yield from ((*base, *name.split("."))[1] for name in names if (*base, name)[0] == "idea_core")


def test_a_room_imports_only_rooms_above_it():
    seen = set()
    for path in (ROOT / "idea_core").rglob("*.py"):
        parts = path.relative_to(ROOT / "idea_core").with_suffix("").parts
        room = "" if parts == ("__init__",) else parts[0]
        seen.add(room)
        for other in _imports(path):
            assert ROOMS.index(other) <= ROOMS.index(room), f"{path.relative_to(ROOT)} imports {other}"
    assert seen == set(ROOMS)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_the_list_of_commands_comes_at_once(arguments):
    """Without torch, in half a second of the processor's time; a clock would count other programs."""
    resource = pytest.importorskip("resource")
    code = f"import sys; from idea_core.headless.cli import idea; idea({arguments!r}, standalone_mode=False)"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = subprocess.run(
        [sys.executable, "-c", f"{code}; print(sorted({{'torch', 'numpy', 'PIL'}} & set(sys.modules)))"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert said.endswith("[]\n") and ("train" in said) == (arguments == ["--help"])
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_every_command_is_listed_in_a_section():
    from idea_core.headless.cli import idea
    from idea_core.headless.cli.main import SECTIONS

    listed = [name for section in SECTIONS.values() for name in section]
    assert sorted(idea.commands) == sorted([*listed, "demo"])
    assert all(command.name == name for name, command in idea.commands.items())
