"""The example workflows for Z-Image and FLUX.2 Klein, through an unmodified ComfyUI server.

Their language model has 36 layers of a width of 2,560, for which no loader has an option: a pack beside this one asks
ComfyUI's own function for few layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from comfyui_place import PACK
from comfyui_server import Server
from graphs import picture, without_apply, workflow
from tiny_transformers import FILES, encoders_of

from idea_core import Identity

pytestmark = pytest.mark.slow  # Z-Image takes 6 GiB, and half a minute a step
FAMILIES = ["klein4b", "zimage"]
SMALLER = """
import comfy.sd
whole = comfy.sd.load_clip
comfy.sd.load_clip = lambda *given, **named: whole(*given, **{{**named, "model_options": {options}}})
NODE_CLASS_MAPPINGS = {{}}
"""


@pytest.fixture(scope="module", params=FAMILIES)
def family(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def place(family, base, tiny_family, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp(tiny_family(family))
    for name in ("models", "input"):
        (place / name).symlink_to(base / name)
    (place / "custom_nodes").mkdir()
    (place / "custom_nodes" / "id-ea").symlink_to(PACK)
    (place / "custom_nodes" / "smaller.py").write_text(SMALLER.format(options=encoders_of(family)))
    return place


@pytest.fixture(scope="module")
def newer(comfyui, python, place) -> Iterator[Server]:
    with Server(comfyui, python, place) as server:
        yield server


def graph(family: str, name: str, **changes: dict) -> dict:
    """An example at test size, with the tiny models of a family."""
    network, (encoder,), vae = FILES[family]
    size = {"width": 64, "height": 64}
    files = {
        "UNETLoader": {"unet_name": network},
        "CLIPLoader": {"clip_name": encoder},
        "VAELoader": {"vae_name": vae},
        "EmptySD3LatentImage": size,
        "EmptyFlux2LatentImage": size,
        "KSampler": {"steps": 1},
    }
    return workflow(name, **files, **changes)


def photos(family: str, person: str) -> dict:
    name = "zimage_photos_to_picture" if family == "zimage" else "klein_photos_to_picture"
    train = {"steps": 2, "resolution": 64, "name": person, "preview_every": 0}
    return graph(family, name, IDEA_EnhancerTrain=train, IDEA_IDEncode={"crop_size": 64})


def test_from_photos_to_a_picture_and_two_people_in_one_prompt(family, newer, place):
    drawn = picture(newer, photos(family, "alice"))
    identity = Identity.load(place / "output" / "idea" / "alice.safetensors")
    assert identity.base_model == family and len(identity.training["losses"]) == 2
    assert all(tensor.abs().max() > 0 for tensor in identity.kv.values())
    assert not np.array_equal(drawn, picture(newer, without_apply(photos(family, "alice"))))
    if family != "zimage":
        return
    picture(newer, photos(family, "bob"))
    two = graph(family, "zimage_two_people")
    (prompt,) = (node for node in two.values() if node["_meta"]["title"] == "Prompt")
    both = picture(newer, two)
    prompt["inputs"]["text"] = prompt["inputs"]["text"].replace("<bob>", "somebody")
    assert not np.array_equal(both, picture(newer, two))
