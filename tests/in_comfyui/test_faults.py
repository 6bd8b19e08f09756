"""What goes wrong around a server: full disks, files that vanish."""

import resource
import shutil
import sys

import numpy as np
import pytest
from graphs import PACK_NAME, generation, listed, picture, train, training, workflow
from server import PromptError

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


def test_a_person_whose_file_is_gone_is_said_and_comes_back(server, base, untouched):
    path = base / "output" / "idea" / "gone.safetensors"
    train(server, "tiny_sd15", "gone", preview_every=0)
    assert path.name in listed(server)
    path.rename(path.with_suffix(".away"))
    with pytest.raises(PromptError, match="gone.safetensors"):
        server.run(generation("tiny_sd15", "gone"))
    path.with_suffix(".away").rename(path)
    assert picture(server, generation("tiny_sd15", "gone")).std() > 1


def test_a_face_model_that_is_loaded_needs_its_files_no_more(server, base):
    packs = base / "models" / "insightface" / "models"
    shutil.copytree(packs / PACK_NAME, packs / "vanishing")
    graph = workflow("encode_and_compare", IDEA_LoadFaceModel={"pack": "vanishing"})
    server.run(graph)
    shutil.rmtree(packs / "vanishing")
    for node in graph.values():
        node["inputs"].update({"min_score": 0.4} if "min_score" in node["inputs"] else {})
    with pytest.raises(PromptError, match="vanishing"):  # the list has it no more
        server.run(graph)
    kept = workflow("encode_and_compare", IDEA_IDEncode={"min_score": 0.4})
    outputs = server.run(kept)
    assert any(np.size(output.get("images", [])) for output in outputs.values())
