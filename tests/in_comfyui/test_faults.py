"""What goes wrong around a server: full disks, files that vanish."""

import dataclasses
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from comfyui_server import PromptError
from graphs import PACK_NAME, generation, listed, picture, train, training, workflow

from idea_core import Identity


def files(folder) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.skipif(sys.platform != "linux", reason="limits a running process as Linux does")
def test_a_full_disk_costs_neither_the_training_nor_older_files(server, base, untouched):
    people = base / "output" / "idea"
    train(server, "tiny_sd15", "full", preview_every=0)
    before, old = files(people), (people / "full.safetensors").read_bytes()
    free = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (1 << 20, free[1]))  # no file may have more than 1 MB
    try:
        with pytest.raises(PromptError, match=r"IDEA_SaveIdentity.*File too large: .*full\.safetensors") as said:
            train(server, "tiny_sd15", "full", preview_every=0, steps=3)
    finally:
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, free)
    assert "Identity(name='full'" in str(said.value) and "tensor(" not in str(said.value)  # users post such reports
    assert files(people) == before and (people / "full.safetensors").read_bytes() == old
    entry = server.wait(server.queue(training("tiny_sd15", "full", preview_every=0, steps=3)))
    (cached,) = (said["nodes"] for kind, said in entry["status"]["messages"] if kind == "execution_cached")
    graph = training("tiny_sd15", "full")
    assert "IDEA_EnhancerTrain" in {graph[key]["class_type"] for key in cached}  # it is not trained again
    assert Identity.load(people / "full.safetensors").training["steps"] == 3


@pytest.fixture
def frozen(base) -> Iterator[Path]:
    """A folder that nobody, root included, can write to."""
    folder = base / "output" / "idea" / "autosave"
    folder.mkdir(parents=True, exist_ok=True)
    if not shutil.which("chattr") or subprocess.run(["chattr", "+i", folder], capture_output=True).returncode:
        pytest.skip("needs chattr and the right to use it")
    yield folder
    subprocess.run(["chattr", "-i", folder], check=True)


def test_a_folder_that_cannot_be_written_to_costs_no_training(server, base, frozen):
    before = files(frozen)
    train(server, "tiny_sd15", "thawed", preview_every=0)
    assert files(frozen) == before
    assert Identity.load(frozen.parent / "thawed.safetensors").name == "thawed"
    assert "is trained, but could not be saved. [Errno 1]" in server.log.read_text(errors="replace")
    graph = training("tiny_sd15", "thawed", preview_every=0)
    (save,) = (node for node in graph.values() if node["class_type"] == "IDEA_SaveIdentity")
    save["inputs"]["filename"] = "autosave/thawed"
    with pytest.raises(PromptError, match="IDEA_SaveIdentity.*Operation not permitted"):
        server.run(graph)


@pytest.mark.slow
def test_a_file_that_is_replaced_while_the_clock_jumps_is_read_anew(server, base, untouched):
    people = base / "output" / "idea"
    for seed, name in enumerate(("clock", "other_clock")):
        train(server, "tiny_sd15", name, preview_every=0, seed=seed)
    first = picture(server, generation("tiny_sd15", "clock"))
    edit = Identity.load(people / "other_clock.safetensors")
    dataclasses.replace(edit, name="clock").save(people / "clock.safetensors")
    for year in (1980, 2100):
        seconds = (year - 1970) * 31_557_600
        os.utime(people / "clock.safetensors", (seconds, seconds))
        assert not np.array_equal(picture(server, generation("tiny_sd15", "clock")), first)


def test_a_person_whose_file_is_gone_is_said_and_comes_back(server, base, untouched):
    path = base / "output" / "idea" / "gone.safetensors"
    train(server, "tiny_sd15", "gone", preview_every=0)
    assert path.name in listed(server)
    path.rename(path.with_suffix(".away"))
    with pytest.raises(PromptError, match="gone.safetensors"):
        server.run(generation("tiny_sd15", "gone"))
    path.with_suffix(".away").rename(path)
    assert picture(server, generation("tiny_sd15", "gone")).std() > 1


def test_a_face_model_whose_files_are_gone_is_said_and_others_work_on(server, base):
    packs = base / "models" / "insightface" / "models"
    shutil.copytree(packs / PACK_NAME, packs / "vanishing")
    graph = workflow("encode_and_compare", IDEA_LoadFaceModel={"pack": "vanishing"})
    server.run(graph)
    shutil.rmtree(packs / "vanishing")
    for node in graph.values():
        node["inputs"].update({"min_score": 0.4} if "min_score" in node["inputs"] else {})
    with pytest.raises(PromptError, match="a face model pack 'vanishing' in "):
        server.run(graph)
    assert server.run(workflow("encode_and_compare", IDEA_IDEncode={"min_score": 0.4}))
