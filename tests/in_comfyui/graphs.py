"""The example workflows at test size, and what a server makes of them."""

from __future__ import annotations

import io
import itertools
import json

import numpy as np
import pytest
from comfyui_place import PACK
from comfyui_server import Server
from PIL import Image

WORKFLOWS = PACK / "workflows"
PACK_NAME = "testpack"  # of face models
PROMPT = "photo of <person> as an astronaut"
PHOTOS = {"Second photo": "photo_2.png", "Photo of another person": "other.png"}  # the others are "photo_1.png"
TEMPLATES = {  # name in the template browser → of the API file
    json.loads(path.read_text("utf-8"))["1"]["_meta"]["template"]: path.stem
    for path in sorted((WORKFLOWS / "api").glob("*.json"))
}
CHECKPOINTS = {"tiny_sd15": "sd1", "tiny_sd21": "sd2", "tiny_sd21_v": "sd2"}
_FRESH = itertools.count(1)


def workflow(name: str, **changes: dict) -> dict:
    """A shipped API workflow at test size; `changes`: class type → inputs."""
    graph = json.loads((WORKFLOWS / "api" / f"{name}.json").read_text())
    small = {
        "IDEA_LoadFaceModel": {"pack": PACK_NAME},
        "IDEA_EnhancerTrain": {"steps": 2, "resolution": 64},
        "EmptyLatentImage": {"width": 64, "height": 64},
        "KSampler": {"steps": 3},
    }
    for node in graph.values():
        if node["class_type"] == "LoadImage":
            node["inputs"]["image"] = PHOTOS.get(node["_meta"]["title"], "photo_1.png")
    for edits in (small, changes):
        for node in graph.values():
            node["inputs"].update(edits.get(node["class_type"], {}))
    return graph


def training(checkpoint: str, name: str, **settings) -> dict:
    return workflow(
        "train_identity",
        CheckpointLoaderSimple={"ckpt_name": f"{checkpoint}.safetensors"},
        IDEA_EnhancerTrain={"name": name, **settings},
    )


def generation(checkpoint: str, name: str, prompt: str = PROMPT, seed: int = 0, **apply) -> dict:
    graph = workflow(
        "generate_with_identity",
        CheckpointLoaderSimple={"ckpt_name": f"{checkpoint}.safetensors"},
        IDEA_LoadIdentity={"file": f"{name}.safetensors"},
        IDEA_ApplyAdapter=apply,
        KSampler={"seed": seed},
    )
    (positive,) = (node for node in graph.values() if node["_meta"]["title"] == "Prompt")
    positive["inputs"]["text"] = prompt.replace("<alice>", f"<{name}>")
    return graph


def train(server: Server, checkpoint: str, name: str, **settings) -> dict:
    return server.run(training(checkpoint, name, **settings))


def base_picture(server: Server, checkpoint: str) -> np.ndarray:
    """What the base model alone makes of the prompt, sampled anew."""
    graph = without_apply(generation(checkpoint, checkpoint))
    (sampler,) = (node for node in graph.values() if node["class_type"] == "KSampler")
    sampler["inputs"]["cfg"] = 7.5 + next(_FRESH) * 1e-9  # another cache key, the same sampling
    return picture(server, graph)


def without_apply(graph: dict) -> dict:
    """What the front end queues when Apply is bypassed: MODEL and CLIP go past it."""
    (apply,) = (key for key, node in graph.items() if node["class_type"] == "IDEA_ApplyAdapter")
    inputs = graph[apply]["inputs"]
    past = {0: inputs["model"], 1: inputs["clip"]}
    kept = {key: node for key, node in graph.items() if not node["class_type"].startswith("IDEA_")}
    for node in kept.values():
        for name, value in node["inputs"].items():
            if isinstance(value, list) and value[0] == apply:
                node["inputs"][name] = past[value[1]]
    return kept


def picture(server: Server, graph: dict) -> np.ndarray:
    """Pixels (H, W, 3) of the one picture that a graph saves; the file also holds the graph."""
    return pixels(server, saved(server.run(graph)))


def saved(outputs: dict) -> dict:
    """The one picture in a prompt's outputs that was saved; others are only shown."""
    images = [image for output in outputs.values() for image in output.get("images", ())]
    (one,) = (image for image in images if image["type"] == "output")
    return one


def pixels(server: Server, image: dict) -> np.ndarray:
    """(H, W, 3) of a picture that a node has shown."""
    return np.asarray(Image.open(io.BytesIO(server.picture(image))))


def skip_where_nodes_lack(graph: dict, known: dict) -> None:
    """Skip the test of a graph with nodes that this ComfyUI is too old for; `known` is its `/object_info`."""
    lacking = {node["class_type"] for node in graph.values()} - known.keys()
    assert not any(kind.startswith("IDEA_") for kind in lacking)
    if lacking:
        pytest.skip(f"this ComfyUI has no {', '.join(sorted(lacking))}")


def listed(server: Server) -> str:
    """The files that Load ID-EA Embedding offers."""
    return str(server.get("/object_info/IDEA_LoadIdentity")["IDEA_LoadIdentity"]["input"]["required"]["file"])
