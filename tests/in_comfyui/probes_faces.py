"""Probes of the face nodes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import comfy.model_management
import folder_paths
import numpy as np
import torch
from PIL import Image
from probes import pack


def photo(name: str) -> torch.Tensor:
    """IMAGE (1, H, W, 3)."""
    with Image.open(folder_paths.get_annotated_filepath(name)) as picture:
        return torch.from_numpy(np.asarray(picture.convert("RGB"))).float()[None] / 255


def face_models():
    return pack("nodes.load_face_model").LoadFaceModel.execute("testpack", "cpu").args[0]


def encode_faces(images: list[torch.Tensor], model=None, **settings):
    """The outputs of ID Encode, called as ComfyUI calls it: with lists."""
    listed = {name: [value] for name, value in settings.items()}
    return pack("nodes.id_encode").IDEncode.execute([model or face_models()], images, **listed).args


def unload_face_models() -> dict:
    """How many engines are kept after use, after ComfyUI unloads models, and when they are used again."""
    load_engine = pack("idea_core.faces").load_engine
    models, photos, kept, means = face_models(), [photo("photo_1.png")], [], []
    for _ in range(2):
        means.append(encode_faces(photos, models)[0].mean)
        kept.append(load_engine.cache_info().currsize)
        comfy.model_management.unload_all_models()
        kept.append(load_engine.cache_info().currsize)
    return {"kept": kept, "same": torch.equal(*means)}


def encode_a_list() -> dict:
    """ID Encode on photos of different sizes and kinds, among them nobody's and another person's."""
    first = photo("photo_1.png")
    large = torch.nn.functional.interpolate(photo("photo_2.png").movedim(-1, 1), scale_factor=2).movedim(1, -1)
    rgba = torch.cat([first, torch.ones(1, *first.shape[1:3], 1)], dim=-1)
    broken = first.clone()
    broken[:, :20, :20] = torch.nan
    images = [torch.cat([first, first]), large, rgba, photo("nobody.png"), photo("other.png"), broken]
    settings = {"no_face": "skip", "outliers": "leave out", "crop_size": 128, "crop_margin": 1.5}
    embeds, crops, preview, masks, report = encode_faces(images, **settings)
    plain = encode_faces([first])
    return {
        "embeds": list(embeds.embeds.shape),
        "alike": (embeds.embeds @ embeds.mean).min().item(),
        "shapes": [list(tensor.shape) for tensor in (crops, preview, masks)],
        "ranges": [[tensor.min().item(), tensor.max().item()] for tensor in (crops, preview, masks)],
        "defaults": [list(tensor.shape) for tensor in plain[1:4]],
        "report": report,
    }


def other_packs_sockets() -> dict:
    """ID Encode with an object as other packs' loaders make it, and with one of theirs that does not fit."""
    from insightface.app import FaceAnalysis

    folder = (
        pack("idea_core.faces.packs").require_pack("testpack", pack("nodes.comfy.paths").insightface_roots()).folder
    )
    analysis = FaceAnalysis(str(folder), providers=["CPUExecutionProvider"])
    analysis.prepare(ctx_id=0, det_size=(640, 640))
    said = said_by(lambda: encode_faces([photo("photo_1.png")], {"not": "theirs"}))
    theirs, ours = (encode_faces([photo("photo_1.png")], model)[0].mean for model in (analysis, None))
    return {"cosine": float(theirs @ ours), "said": said}


def other_places(place: str) -> dict:
    """Load Face Model with a pack and a recogniser's file in a folder that extra_model_paths.yaml names."""
    roots = pack("nodes.comfy.paths").insightface_roots
    known = pack("idea_core.faces.packs").require_pack("testpack", roots()).folder
    models = Path(place) / "models"
    shutil.copytree(known, models / "antelopev2" / "antelopev2")
    shutil.copy(known / "rec_test.onnx", models / "arcface.onnx")
    folder_paths.add_model_folder_path("insightface", place)  # as the file's reader does
    node = pack("nodes.load_face_model").LoadFaceModel
    try:
        (options,) = (one.options for one in node.define_schema().inputs if one.id == "pack")
        nested, runs_on = node.execute("antelopev2", "cpu").args
        single = node.execute("arcface.onnx", "auto").args[0]
        embeds = encode_faces([photo("photo_1.png")], nested)[0]
        found = pack("idea_core.faces").encode_photos(nested.engine(), [(photo("photo_1.png")[0] * 255).byte().numpy()])
        crop = nested.engine().align(found[1][0].photo, found[1][0].chosen)
        aligned = encode_faces([torch.from_numpy(crop)[None] / 255], single, aligned=True)[0]
        said = said_by(lambda: encode_faces([photo("photo_1.png")], single))
    finally:
        folder_paths.folder_names_and_paths["insightface"][0].remove(place)
    return {
        "options": options,
        "runs_on": runs_on,
        "cosine": float(embeds.mean @ aligned.mean),
        "said": said,
        "refused": said_by(lambda: node.execute("antelopev2", "cpu")),
    }


def said_by(call: Callable[[], object]) -> str:
    """What the pack's error says; "" without one."""
    try:
        call()
    except pack("idea_core").IdeaError as error:
        return str(error)
    return ""
