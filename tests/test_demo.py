"""The demo, and the world of people in three dimensions that it ships: likeness that is measured, not assumed."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from idea_command import run
from safetensors.torch import load_file

from idea_core import Identity
from miniature.packed import MARK, expand, pack, shrink, tree_digest
from miniature.packed import unpack as unpack_folder
from world3d.demo import DRAWING, NAME, REFINING, STAGES, Demo
from world3d.shipped import DATA, unpack
from world3d.somebody import PEOPLE, PER_PROMPT, Somebody, everybody
from world3d.world import World


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return World.shipped(tmp_path_factory.mktemp("world"))


def test_matrices_in_bytes_are_near_what_they_stand_for():
    generator = torch.Generator().manual_seed(0)
    tensors = {"w": torch.randn(64, 32, 3, 3, generator=generator), "b": torch.randn(64, generator=generator)}
    small, again = shrink(tensors), expand(shrink(tensors))
    assert {tensor.dtype for tensor in small.values()} == {torch.int8, torch.float16, torch.float32}
    assert again.keys() == tensors.keys()
    assert torch.equal(again["b"], tensors["b"].half())
    error = (again["w"].float() - tensors["w"]).flatten(1)
    largest = tensors["w"].flatten(1).abs().amax(1)
    assert ((error.abs().amax(1) / largest) < 0.0045).all()  # half a step of 127, and half precision


def test_models_are_expanded_once(world):
    files = {path.relative_to(DATA) for path in DATA.rglob("*") if path.is_file()} | {Path(MARK)}
    assert files == {path.relative_to(world.folder) for path in world.folder.rglob("*") if path.is_file()}
    written = {path: path.stat().st_mtime_ns for path in world.folder.rglob("*")}
    unpack(world.folder)
    assert written == {path: path.stat().st_mtime_ns for path in world.folder.rglob("*")}
    weights = load_file(world.base / "unet" / "diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}


def test_models_of_another_version_are_expanded_anew(world, tmp_path):
    folder = Path(shutil.copytree(world.folder, tmp_path / "models"))
    place = folder / "faces" / "det.onnx"
    place.write_bytes(b"old")
    unpack(folder)
    assert place.read_bytes() == b"old"  # it is said to be there
    (folder / MARK).write_text("of another version")
    unpack(folder)
    assert place.stat().st_size > 10**6 and (folder / MARK).read_text() == tree_digest(DATA)


def test_what_is_packed_expands_to_the_same(world, tmp_path):
    pack(world.folder, tmp_path / "packed")
    again = unpack_folder(tmp_path / "packed", tmp_path / "again")
    for part in ("base/unet/diffusion_pytorch_model.safetensors", "enhancer.safetensors"):
        ours, theirs = load_file(again / part), load_file(world.folder / part)
        assert max(float((ours[key].float() - theirs[key].float()).abs().max()) for key in theirs) < 5e-3
    for source, target in ((tmp_path / "packed", tmp_path / "other"), (tmp_path, tmp_path / "packed")):
        with pytest.raises(ValueError):
            pack(source, target)
    with pytest.raises(FileNotFoundError):
        unpack_folder(tmp_path / "nothing", tmp_path / "other")


def test_everybody_has_what_a_comparison_reads():
    people = everybody(3)
    assert [one.folder.name for one in people] == ["alice", "bob", "carla", "dan"]
    for one in people:
        assert len(one.photos) == 3 and len(one.person.references) == 8
        assert len(one.true_images()) == len(one.prompts("x")) == 12
        assert all(path.with_suffix(".txt").is_file() for path in one.photos)


def test_true_pictures_are_like_the_person_and_show_what_is_asked_for(world):
    people = everybody(1)
    own = [one.measure(one.true_images(), world) for one in people]
    others = [one.measure(people[number - 1].true_images(), world) for number, one in enumerate(people)]
    assert min(row["identity"] for row in own) > max(row["identity"] for row in others)
    assert min(row["second"] for row in own) > max(row["second"] for row in others)
    assert sum(row["obedience"] for row in own) / len(own) > 0.97


def short(folder: Path) -> Somebody:
    """Alice with one prompt alone."""
    alice = shutil.copytree(PEOPLE / "alice", folder / "alice")
    prompt, *_ = (alice / "prompts.txt").read_text("utf-8").splitlines()
    (alice / "prompts.txt").write_text(prompt, "utf-8")
    for image in sorted((alice / "true").iterdir())[PER_PROMPT:]:
        image.unlink()
    return Somebody(alice, 1)


def test_demo(tmp_path, world):
    Path(tmp_path / "models").symlink_to(world.folder)
    stages: list[str] = []
    drawing, refining = replace(DRAWING, steps=6), replace(REFINING, rounds=1, num_images=4, sampling_steps=4)
    said = Demo(tmp_path, short(tmp_path), 3, drawing, refining).run(stages.append)
    assert len(stages) == STAGES
    assert [row["title"] for row in said["rows"]][2:] == [
        "Textual Inversion, 3 steps",
        "Cross Initialization, 3 steps",
        "ID-EA, 25 steps",
        "ID-EA, pretrained ID-Enhancer, 25 steps",
        "at once",
        "at once, refined",
    ]
    true, named, *_, at_once, _ = (row["identity"] for row in said["rows"])
    assert true > 0.6 and named < 0.15 < at_once  # of alice, of a stranger, and at once from one photo
    page = (tmp_path / "report.html").read_text("utf-8")
    assert page.count("data:image/jpeg;base64,") == 1 + len(said["rows"])
    assert page.count("<main>") == page.count("</main>") == 1
    assert page.count('scope="row"') == 2 * len(said["rows"]) and page.count("<th ") == page.count(' scope="')
    file = tmp_path / "identities" / "id-ea-25-steps.safetensors"
    identity = Identity.load(file)
    assert identity.name == NAME and identity.base_model == "world3d" and identity.has_adapter and identity.kv
    assert "world3d" in run("info", file).stdout
    converted = tmp_path / "person.safetensors"
    run("convert", file, "--to", "diffusers", "-o", converted)
    assert "world3d" in run("info", converted).stdout


@pytest.mark.slow
def test_the_command(tmp_path, world):
    Path(tmp_path / "models").symlink_to(world.folder)
    said = run("demo", "-o", tmp_path, "--person", "bob", "--steps", "2", "--json")
    assert said["person"] == "bob" and len(said["rows"]) == 8 and Path(said["report"]).is_file()


def test_no_comfyui(tmp_path, world):
    Path(tmp_path / "models").symlink_to(world.folder)
    said = run("demo", "--comfyui", tmp_path / "none", "-o", tmp_path, code=1)
    assert "Give the folder of main.py." in said.output
