"""The face nodes in real ComfyUI."""

import json

import pytest
from graphs import workflow


def test_face_models_are_freed_when_comfyui_unloads_models_and_come_back(probe):
    result = probe("unload_face_models")
    assert result == {"kept": [1, 0, 1, 0], "same": True}


def test_id_encode_takes_a_list_of_any_photos(probe):
    result = probe("encode_a_list")
    assert result["embeds"] == [5, 512] and result["alike"] > 0.8
    assert result["shapes"] == [[5, 128, 128, 3], [7, 480, 640, 3], [5, 128, 128]]
    assert all(0 <= low < high <= 1 for low, high in result["ranges"])
    assert result["defaults"] == [[1, 512, 512, 3], [1, 240, 320, 3], [1, 512, 512]]
    lines = result["report"].splitlines()
    assert lines[4].startswith("photo 4: left out, no face taken: none in 320 × 240 pixels")
    assert lines[5].endswith("looks like another person: left out")
    assert lines[7].startswith("5 of 7 photos taken")


def test_other_packs_face_models_are_taken_as_they_are(probe):
    result = probe("other_packs_sockets")
    assert result["cosine"] == pytest.approx(1, abs=1e-6)
    assert result["said"].startswith("Expected a FaceAnalysis with detection and recognition, got a dict with nothing.")


def test_packs_and_single_recognisers_are_found_where_extra_model_paths_says(probe, tmp_path):
    result = probe("other_places", place=tmp_path)
    assert {"testpack", "antelopev2", "arcface.onnx"} <= set(result["options"])
    assert result["runs_on"] == "CPUExecutionProvider"
    assert result["cosine"] == pytest.approx(1, abs=1e-5)
    assert result["said"].startswith("Expected a face detector, got arcface.onnx, a recogniser alone.")
    assert result["refused"].startswith("Expected a face model pack 'antelopev2' in ")


def test_encode_and_compare(server):
    graph = workflow("encode_and_compare")
    outputs = server.run(graph)
    shown = {graph[key]["_meta"]["title"]: output for key, output in outputs.items()}
    assert len(shown["Faces found"]["images"]) == 2
    assert len(shown["Best first"]["images"]) == 3
    assert len(shown["Likeness"]["images"]) == 1
    (report,) = shown["Report"]["text"]
    lines = report.splitlines()
    assert [line.split(":")[0] for line in lines[:3]][-1] == "image 2"
    assert lines[2].endswith(" 0 % alike") and "a face in 100% of the images" in lines[3]
    assert shown["Load Face Model"]["text"] == ["testpack runs on CPUExecutionProvider"]
    assert shown["ID Encode"]["text"][0].startswith("photo 0: face 1 of 1, score 0.9")


def test_a_workflow_from_before_the_options_still_runs(server):
    graph = workflow("encode_and_compare")
    needed = {"face_model", "images", "id_embeds"}
    for node in graph.values():
        if node["class_type"] in ("IDEA_IDEncode", "IDEA_IDSimilarity"):
            node["inputs"] = {name: value for name, value in node["inputs"].items() if name in needed}
    assert json.dumps(server.run(graph)).count("face 1 of 1") >= 2
