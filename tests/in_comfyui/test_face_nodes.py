"""The face nodes in real ComfyUI."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from graphs import workflow
from inside import INSIDE, in_comfyui
from PIL import Image

if INSIDE:
    import comfy.model_management
    import folder_paths
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


@in_comfyui
def test_face_models_are_freed_when_comfyui_unloads_models_and_come_back():
    load_engine = pack("idea_core.faces").load_engine
    models, photos, means = face_models(), [photo("photo_1.png")], []
    for _ in range(2):
        means.append(encode_faces(photos, models)[0].mean)
        assert load_engine.cache_info().currsize == 1
        comfy.model_management.unload_all_models()
        assert load_engine.cache_info().currsize == 0
    assert torch.equal(*means)


@in_comfyui
def test_id_encode_takes_a_list_of_any_photos():
    """Of different sizes and kinds, among them nobody's and another person's."""
    first = photo("photo_1.png")
    large = torch.nn.functional.interpolate(photo("photo_2.png").movedim(-1, 1), scale_factor=2).movedim(1, -1)
    rgba = torch.cat([first, torch.ones(1, *first.shape[1:3], 1)], dim=-1)
    broken = first.clone()
    broken[:, :20, :20] = torch.nan
    images = [torch.cat([first, first]), large, rgba, photo("nobody.png"), photo("other.png"), broken]
    settings = {"no_face": "skip", "outliers": "leave out", "crop_size": 128, "crop_margin": 1.5}
    embeds, crops, preview, masks, report = encode_faces(images, **settings)
    assert embeds.embeds.shape == (5, 512)
    assert (embeds.embeds @ embeds.mean).min() > 0.8
    assert crops.shape == (5, 128, 128, 3)
    assert preview.shape == (7, 480, 640, 3)
    assert masks.shape == (5, 128, 128)
    assert all(0 <= one.min() < one.max() <= 1 for one in (crops, preview, masks))
    lines = report.splitlines()
    assert lines[4].startswith("photo 4: left out, no face used: none in 320 × 240 pixels")
    assert lines[5].endswith("looks like another person: left out")
    assert lines[7].startswith("5 of 7 photos used")
    shapes = [tuple(one.shape) for one in encode_faces([first])[1:4]]
    assert shapes == [(1, 512, 512, 3), (1, 240, 320, 3), (1, 512, 512)]  # by default


@in_comfyui
def test_other_packs_face_models_are_taken_as_they_are():
    """An object as other packs' loaders make it, and one of theirs that does not fit."""
    from insightface.app import FaceAnalysis

    folder = (
        pack("idea_core.faces.packs").require_pack("testpack", pack("nodes.comfy.paths").insightface_roots()).folder
    )
    analysis = FaceAnalysis(str(folder), providers=["CPUExecutionProvider"])
    analysis.prepare(ctx_id=0, det_size=(640, 640))
    theirs, ours = (encode_faces([photo("photo_1.png")], model)[0].mean for model in (analysis, None))
    assert float(theirs @ ours) == pytest.approx(1, abs=1e-6)
    said = "^Expected a FaceAnalysis with detection and recognition, got a dict with nothing."
    with pytest.raises(pack("idea_core").IdeaError, match=said):
        encode_faces([photo("photo_1.png")], {"not": "theirs"})


@in_comfyui
def test_packs_and_single_recognisers_are_found_where_extra_model_paths_says(tmp_path):
    roots = pack("nodes.comfy.paths").insightface_roots
    known = pack("idea_core.faces.packs").require_pack("testpack", roots()).folder
    models = Path(tmp_path) / "models"
    shutil.copytree(known, models / "antelopev2" / "antelopev2")
    shutil.copy(known / "rec_test.onnx", models / "arcface.onnx")
    folder_paths.add_model_folder_path("insightface", tmp_path)  # as the file's reader does
    node = pack("nodes.load_face_model").LoadFaceModel
    try:
        (options,) = (one.options for one in node.define_schema().inputs if one.id == "pack")
        assert {"testpack", "antelopev2", "arcface.onnx"} <= set(options)
        nested, runs_on = node.execute("antelopev2", "cpu").args
        assert runs_on == "CPUExecutionProvider"
        single = node.execute("arcface.onnx", "auto").args[0]
        embeds = encode_faces([photo("photo_1.png")], nested)[0]
        found = pack("idea_core.faces").encode_photos(nested.engine(), [(photo("photo_1.png")[0] * 255).byte().numpy()])
        crop = nested.engine().align(found[1][0].photo, found[1][0].chosen)
        aligned = encode_faces([torch.from_numpy(crop)[None] / 255], single, aligned=True)[0]
        assert float(embeds.mean @ aligned.mean) == pytest.approx(1, abs=1e-5)
        said = "^Expected a face detector, got arcface.onnx, a recogniser alone."
        with pytest.raises(pack("idea_core").IdeaError, match=said):
            encode_faces([photo("photo_1.png")], single)
    finally:
        folder_paths.folder_names_and_paths["insightface"][0].remove(tmp_path)
    with pytest.raises(pack("idea_core").IdeaError, match="^Expected a face model pack 'antelopev2' in "):
        node.execute("antelopev2", "cpu")


def test_encode_and_compare(server):
    graph = workflow("encode_and_compare")
    outputs = server.run(graph)
    shown = {graph[key]["_meta"]["title"]: output for key, output in outputs.items()}
    assert len(shown["ID Encode: the person"]["images"]) == 2
    assert len(shown["Most similar first"]["images"]) == 3
    assert len(shown["Similarity"]["images"]) == 1
    (report,) = shown["Report"]["text"]
    lines = report.splitlines()
    assert [line.split(":")[0] for line in lines[:3]][-1] == "image 2"
    assert lines[2].endswith(" = 0 %") and "a face in 100 % of the images" in lines[3]
    assert shown["Load Face Model"]["text"] == ["testpack runs on CPUExecutionProvider"]
    assert shown["ID Encode: the person"]["text"][0].startswith("photo 0: face 1 of 1, score 0.9")


def test_a_workflow_from_before_the_options_still_runs(server):
    graph = workflow("encode_and_compare")
    needed = {"face_model", "images", "id_embeds"}
    for node in graph.values():
        if node["class_type"] in ("IDEA_IDEncode", "IDEA_IDSimilarity"):
            node["inputs"] = {name: value for name, value in node["inputs"].items() if name in needed}
    assert json.dumps(server.run(graph)).count("face 1 of 1") >= 2
