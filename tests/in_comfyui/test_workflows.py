"""The example workflows, through an unmodified ComfyUI server."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import time
import urllib.parse
import urllib.request

import numpy as np
import pytest
from comfyui_server import PromptError
from graphs import (
    CHECKPOINTS,
    PROMPT,
    TEMPLATES,
    WORKFLOWS,
    base_picture,
    generation,
    listed,
    picture,
    pixels,
    saved,
    skip_where_nodes_lack,
    train,
    workflow,
)
from PIL import Image

from idea_core import Identity
from idea_core.identity.thumbnail import decode_thumbnail
from idea_core.method.axes import AXES_FOLDER

WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}


@pytest.fixture(scope="module")
def trained(server, untouched) -> dict[str, dict]:
    """Outputs of a training on each checkpoint; the person is called after it."""
    looks = {checkpoint: 25 if checkpoint == "tiny_sd15" else 0 for checkpoint in CHECKPOINTS}
    return {
        checkpoint: train(server, checkpoint, checkpoint, preview_every=every) for checkpoint, every in looks.items()
    }


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_from_photos_to_a_picture(server, base, untouched, trained, checkpoint):
    path = base / "output" / "idea" / f"{checkpoint}.safetensors"
    identity = Identity.load(path)
    assert identity.base_model == CHECKPOINTS[checkpoint]
    assert identity.prediction == ("v" if checkpoint.endswith("_v") else "eps")
    assert identity.base_checkpoint == f"{checkpoint}.safetensors"
    weights = (base / "models" / "checkpoints" / identity.base_checkpoint).read_bytes()
    assert identity.base_ref.base_hash == hashlib.sha256(weights).hexdigest()
    assert len(identity.training["losses"]) == 2
    assert identity.adapter["gamma"].abs() > 0
    assert all(tensor.abs().max() > 0 for tensor in identity.kv.values())
    assert path.name in listed(server)

    with_person = picture(server, generation(checkpoint, checkpoint))
    without_kv = picture(server, generation(checkpoint, checkpoint, kv_strength=0.0))
    nothing = picture(server, generation(checkpoint, checkpoint, strength=0.0, kv_strength=0.0))
    assert not np.array_equal(with_person, untouched[checkpoint])
    assert not np.array_equal(with_person, without_kv)
    assert np.array_equal(nothing, untouched[checkpoint])
    assert np.array_equal(base_picture(server, checkpoint), untouched[checkpoint])


def settings(server, **changes) -> dict:
    return {"class_type": "IDEA_TrainingSettings", "inputs": server.defaults("IDEA_TrainingSettings") | changes}


def test_strengths_change_without_encoding_the_prompts_again(server, trained):
    """Prompts hang on one Apply, the sampler on another one of the same person."""

    def run(strength: float) -> tuple[set[str], np.ndarray]:
        graph = generation("tiny_sd15", "tiny_sd15")
        (apply,) = (key for key, node in graph.items() if node["class_type"] == "IDEA_ApplyAdapter")
        (sampler,) = (node for node in graph.values() if node["class_type"] == "KSampler")
        graph["strengths"] = copy.deepcopy(graph[apply])
        graph["strengths"]["inputs"].update(strength=strength, kv_strength=0.0)
        sampler["inputs"]["model"] = ["strengths", 0]
        entry = server.wait(server.queue(graph))
        cached = next(said["nodes"] for kind, said in entry["status"]["messages"] if kind == "execution_cached")
        return {graph[key]["class_type"] for key in cached}, pixels(server, saved(entry["outputs"]))

    _, strong = run(2.0)
    cached, weak = run(-2.0)
    assert "CLIPTextEncode" in cached and "KSampler" not in cached
    assert np.abs(strong.astype(int) - weak).max() > 0
    single = generation("tiny_sd15", "tiny_sd15", strength=-2.0, kv_strength=0.0)
    assert np.array_equal(picture(server, single), weak)


def test_a_training_with_all_that_it_takes(server, base, trained):
    graph = workflow(
        "train_identity",
        CheckpointLoaderSimple={"ckpt_name": "tiny_sd15.safetensors"},
    )
    kinds = {node["class_type"]: key for key, node in graph.items()}
    chosen = {"steps": 3, "batch_size": 1, "kv_rank": 4, "num_tokens": 3, "regularizer": "l2", "precision": "fp32"}
    chosen |= {"likeness_weight": 0.2, "likeness_images": 1, "likeness_sampling_steps": 1}
    graph["settings"] = settings(server, **chosen, save_every=2)
    graph[kinds["IDEA_EnhancerTrain"]]["inputs"] |= {
        "settings": ["settings", 0],
        "masks": [kinds["IDEA_IDEncode"], 3],
        "face_model": [kinds["IDEA_LoadFaceModel"], 0],
        "notes": "on a gray background\n{} smiling",
        "names": "leonardo di caprio",
        "preview_every": 2,
        "until_likeness": 0.9,
        "name": "everything",
        "keep_shape": True,
        "steps": 0,
    }
    graph["report"] = {"class_type": "PreviewAny", "inputs": {"source": [kinds["IDEA_EnhancerTrain"], 2]}}
    outputs = server.run(graph)
    identity = Identity.load(base / "output" / "idea" / "everything.safetensors")
    assert (
        identity.num_tokens == 3 and len(identity.training["losses"]) == 3 and identity.training["regularizer"] == "l2"
    )
    report = identity.training["report"]
    assert report["steps_done"] == 3 and report["likeness"] == [[2, 0.0]] and report["steps_per_second"] > 0
    assert report["seconds"]["saves"] > 0 and not list((base / "output" / "idea").rglob("everything*.training"))
    said = outputs["report"]["text"][0]
    assert "kv_rank: 4" in said and "steps_done: 3" in said and "losses" not in said


def test_training_shows_the_faces_and_the_loss(server, trained):
    graph, outputs = workflow("train_identity"), trained["tiny_sd15"]
    previews = {graph[key]["_meta"]["title"]: outputs[key]["images"] for key in outputs if "images" in outputs[key]}
    shown = {"ID Encode": 2, "Train the person": 1, "Loss curve": 1}
    assert {title: len(images) for title, images in previews.items()} == shown
    for images in previews.values():
        assert all(server.picture(image).startswith(b"\x89PNG") for image in images)


def test_a_file_has_a_picture_that_info_shows(server, base, trained):
    own = Identity.load(base / "output" / "idea" / "tiny_sd15.safetensors")
    assert decode_thumbnail(own.thumbnail).size == (64, 64)  # of the training's last preview
    graph = {
        "load": {"class_type": "IDEA_LoadIdentity", "inputs": {"file": "tiny_sd15.safetensors"}},
        "photo": {"class_type": "LoadImage", "inputs": {"image": "photo_1.png"}},
        "save": {
            "class_type": "IDEA_SaveIdentity",
            "inputs": {"identity": ["load", 0], "filename": "pictured", "image": ["photo", 0]},
        },
        "info": {"class_type": "IDEA_IdentityInfo", "inputs": {"identity": ["load", 0]}},
    }
    said = server.run(graph)["info"]
    assert "tiny_sd15.safetensors" in said["text"][0] and "Stable Diffusion 1.x" in said["text"][0]
    shown = np.asarray(Image.open(io.BytesIO(server.picture(said["images"][0]))))
    assert np.array_equal(shown, np.asarray(decode_thumbnail(own.thumbnail)))
    pictured = Identity.load(base / "output" / "idea" / "pictured.safetensors")
    photo = Image.open(base / "input" / "photo_1.png").convert("RGB")
    small = np.asarray(photo.resize(decode_thumbnail(pictured.thumbnail).size), dtype=int)
    assert np.abs(np.asarray(decode_thumbnail(pictured.thumbnail), dtype=int) - small).mean() < 10


def test_an_unchanged_input_is_not_trained_again_after_the_cache_is_gone(server, base, trained):
    autosaves = sorted((base / "output" / "idea" / "autosave").glob("tiny_sd15-*.safetensors"))
    before = [path.stat().st_mtime_ns for path in autosaves]
    server.post("/free", {"unload_models": True, "free_memory": True})
    time.sleep(1)
    train(server, "tiny_sd15", "tiny_sd15")
    assert len(autosaves) == 1
    assert sorted((base / "output" / "idea" / "autosave").glob("tiny_sd15-*.safetensors")) == autosaves
    assert [path.stat().st_mtime_ns for path in autosaves] == before
    assert "was trained from the same inputs before" in server.log.read_text()


def test_cancel_stops_training_and_the_server_goes_on(server, base, untouched, trained):
    graph = workflow(
        "train_identity",
        CheckpointLoaderSimple={"ckpt_name": "tiny_sd15.safetensors"},
        IDEA_EnhancerTrain={"name": "never", "steps": 0, "resolution": 64, "settings": ["settings", 0]},
    )
    graph["settings"] = settings(server, steps=5000, batch_size=1, save_every=1)
    prompt_id = server.queue(graph)
    limit = time.monotonic() + 120
    while not list((base / "output" / "idea").rglob("never*.training")) and time.monotonic() < limit:
        time.sleep(0.05)
    started = time.monotonic()
    server.post("/interrupt", {})
    entry = server.wait(prompt_id)
    assert time.monotonic() - started < 10
    (where,) = (data for kind, data in entry["status"]["messages"] if kind == "execution_interrupted")
    assert where["node_type"] == "IDEA_EnhancerTrain"
    kept = sorted(path.suffix for path in (base / "output" / "idea").rglob("never*"))
    assert kept == [".safetensors", ".training"]
    assert np.array_equal(base_picture(server, "tiny_sd15"), untouched["tiny_sd15"])


BAD = {
    "nobody in the photo": (
        {"LoadImage": {"image": "nobody.png"}},
        "Expected a face in photo 0, got none in 320 × 240",
    ),
    "no such pack": ({"IDEA_LoadFaceModel": {"pack": "nowhere"}}, "Expected a face model pack 'nowhere' in"),
    "odd name": ({"IDEA_EnhancerTrain": {"name": "a <b>"}}, "Expected a name of 1 to 64 letters, digits, _, - or '"),
    "fewer than no steps": ({"IDEA_EnhancerTrain": {"steps": -1}}, "smaller than min of 0"),
    "too few notes": ({"IDEA_EnhancerTrain": {"notes": "in rain"}}, "a line of notes for each of the 2 photos, got 1"),
    "likeness without a face model": (
        {"IDEA_EnhancerTrain": {"until_likeness": 0.5}},
        "Expected a FACE_MODEL to measure likeness, got none. Connect Load Face Model.",
    ),
    "training for likeness without a face model": (
        {"IDEA_EnhancerTrain": {"preset": "likeness"}},
        "Expected a FACE_MODEL to train for likeness, got none. Connect Load Face Model.",
    ),
    "no number": ({"IDEA_IDEncode": {"crop_margin": "nan"}}, "a finite crop_margin, got nan. Change crop_margin."),
    "short names": ({"IDEA_EnhancerTrain": {"names": "cher"}}, "at least one name or phrase of 2 tokens or more"),
    **{
        f"file name {name!r}": ({"IDEA_SaveIdentity": {"filename": name}}, "Expected a file name of letters, digits")
        for name in ("../../alice", "/alice", "a:b", "people/con", "a\nb", "a" * 101)
    },
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_bad_input_to_training_is_said(server, base, changes, message):
    before = sorted((base / "output" / "idea").rglob("*"))
    settings = {"name": "bad", "steps": 1, "resolution": 64}
    edits = {"CheckpointLoaderSimple": {"ckpt_name": "tiny_sd15.safetensors"}, "IDEA_EnhancerTrain": settings}
    for kind, inputs in changes.items():
        edits[kind] = {**edits.get(kind, {}), **inputs}
    with pytest.raises(PromptError) as refused:
        server.run(workflow("train_identity", **edits))
    assert message in _readable(refused.value)
    new = {path for path in sorted((base / "output" / "idea").rglob("*")) if path not in before}
    places = {("autosave", ".safetensors"), (AXES_FOLDER, ".axes")}
    assert {(path.parent.name, path.suffix) for path in new if path.is_file()} <= places


def _readable(error: PromptError) -> str:
    return str(error).encode().decode("unicode_escape")


def damaged(kind: str, good: bytes) -> bytes:
    return {"truncated": good[: len(good) // 2], "foreign": b"GIF89a" + bytes(200), "empty": b""}[kind]


@pytest.mark.parametrize("kind", ["truncated", "foreign", "empty"])
def test_a_damaged_file_is_refused_and_the_server_goes_on(server, base, trained, kind):
    folder = base / "output" / "idea"
    (folder / f"{kind}.safetensors").write_bytes(damaged(kind, (folder / "tiny_sd15.safetensors").read_bytes()))
    with pytest.raises(PromptError, match=f"Expected a whole safetensors file, got .* in {kind}.safetensors"):
        server.run(generation("tiny_sd15", kind))
    again = picture(server, generation("tiny_sd15", "tiny_sd15", prompt=f"{PROMPT}, {kind}"))
    assert again.shape == (64, 64, 3)
    assert again.std() > 1


def test_a_file_without_the_face_still_applies(server, base, trained):
    folder = base / "output" / "idea"
    graph = {
        "1": {"class_type": "IDEA_LoadIdentity", "inputs": {"file": "tiny_sd15.safetensors"}},
        "2": {
            "class_type": "IDEA_SaveIdentity",
            "inputs": {"identity": ["1", 0], "filename": "faceless", "keep_face": False},
        },
    }
    server.run(graph)
    with_face, without = (Identity.load(folder / f"{name}.safetensors") for name in ("tiny_sd15", "faceless"))
    assert with_face.id_embeds is not None and without.id_embeds is None
    same = generation("tiny_sd15", "faceless", prompt="photo of <tiny_sd15>, faceless")
    again = generation("tiny_sd15", "tiny_sd15", prompt="photo of <tiny_sd15>, faceless")
    assert np.array_equal(picture(server, same), picture(server, again))


def test_strengths_that_are_no_numbers_are_refused(server, trained):
    with pytest.raises(PromptError, match="Expected a finite kv_strength, got nan. Change kv_strength."):
        server.run(generation("tiny_sd15", "tiny_sd15", kv_strength="nan"))


def test_an_identity_of_another_base_model_is_refused(server, trained):
    with pytest.raises(PromptError, match="Expected a MODEL and CLIP of Stable Diffusion 2.x, .* got sd1"):
        server.run(generation("tiny_sd15", "tiny_sd21"))


@pytest.mark.parametrize(
    ("name", "pictures"),
    [
        ("two_people", {"Your picture": 1}),
        ("person_with_lora", {"Your picture": 1}),
        ("photos_to_picture", {"Train the person": 1, "Your picture": 1}),
        ("best_of_a_batch", {"Best first": 8, "Scores": 1}),
        ("blend_people", {"Your picture": 1}),
        ("strengths", {"As trained": 1, "Half": 1, "First half alone": 1}),
        ("instant_person", {"Your picture": 1}),
    ],
)
def test_an_example_gives_pictures(server, examples_files, name, pictures):
    graph = workflow(name, CheckpointLoaderSimple={"ckpt_name": "tiny_sd15.safetensors"})
    outputs = server.run(graph)
    found = {graph[key]["_meta"]["title"]: output["images"] for key, output in outputs.items() if "images" in output}
    assert {title: len(found[title]) for title in pictures} == pictures
    drawn = [pixels(server, image) for title in pictures for image in found[title]]
    assert min(one.std() for one in drawn) > 1
    assert len({one.tobytes() for one in drawn}) == len(drawn)


def test_the_refined_example_says_that_nobody_is_in_the_pictures_of_random_weights(server, examples_files):
    settings = {"rounds": 1, "num_images": 2, "sampling_steps": 2, "resolution": 64}
    edits = {"CheckpointLoaderSimple": {"ckpt_name": "tiny_sd15.safetensors"}, "IDEA_RefinedIdentity": settings}
    with pytest.raises(PromptError, match="Expected a face in 2 images that the base model draws of the person"):
        server.run(workflow("refined_person", **edits))


def test_the_example_of_an_enhancer_says_that_random_weights_draw_nobody(server, examples_files):
    settings = {"max_people": 3, "images_per_person": 3, "sampling_steps": 1, "resolution": 64, "val_fraction": 0.0}
    edits = {"CheckpointLoaderSimple": {"ckpt_name": "tiny_sd15.safetensors"}, "IDEA_EnhancerTrainAcross": settings}
    with pytest.raises(PromptError, match="Expected people with 3 images that agree"):
        server.run(workflow("train_enhancer", **edits))


# --- the files themselves -------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted((WORKFLOWS / "api").glob("*.json")), ids=lambda path: path.stem)
def test_the_front_end_file_is_the_same_graph(server, path):
    api = json.loads(path.read_text())
    front = json.loads((WORKFLOWS / f"{api['1']['_meta']['template']}.json").read_text())
    info = server.get("/object_info")
    skip_where_nodes_lack(api, info)
    links = {link[0]: link for link in front["links"]}
    graph = {}
    for node in front["nodes"]:
        if node["type"] == "MarkdownNote":
            continue
        spec = info[node["type"]]
        names = [name for group in ("required", "optional") for name in spec["input_order"].get(group, [])]
        kinds = {**spec["input"].get("required", {}), **spec["input"].get("optional", {})}
        linked = {socket["name"]: links[socket["link"]] for socket in node["inputs"] if socket["link"]}
        values = iter(node["widgets_values"])
        inputs = {}
        for name in names:
            if name in linked:
                _, source, slot, target, _, kind = linked[name]
                assert target == node["id"]
                assert kinds[name][0] == "*" or kind in kinds[name][0].split(",")
                inputs[name] = [str(source), slot]
                continue
            if isinstance(kinds[name][0], str) and kinds[name][0] not in WIDGETS:
                continue  # an optional socket without a link
            inputs[name] = next(values)
            options = kinds[name][1] if len(kinds[name]) > 1 else {}
            if options.get("control_after_generate") or options.get("image_upload"):
                next(values)
        assert not list(values)
        graph[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    assert graph == {key: {"class_type": n["class_type"], "inputs": n["inputs"]} for key, n in api.items()}


def test_every_input_and_output_has_a_tooltip(server):
    ours = {key: spec for key, spec in server.get("/object_info").items() if key.startswith("IDEA_")}
    assert len(ours) == 17
    for key, spec in ours.items():
        assert spec["description"], key
        inputs = {**spec["input"].get("required", {}), **spec["input"].get("optional", {})}
        assert [name for name, (_, options) in inputs.items() if not options.get("tooltip")] == []
        assert len(spec["output_tooltips"] or []) == len(spec["output"]) and all(spec["output_tooltips"] or [])


def test_the_workflows_are_found_as_templates(server):
    names = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
    assert sorted(server.get("/workflow_templates")["id-ea"]) == names
    for name in names:
        url = f"{server.url}/api/workflow_templates/id-ea/{urllib.parse.quote(name)}.jpg"
        with urllib.request.urlopen(url, timeout=60) as answer:
            assert answer.read() == (WORKFLOWS / f"{name}.jpg").read_bytes()


def test_the_workflow_folder_holds_pairs():
    assert {path.stem for path in WORKFLOWS.glob("*.json")} == set(TEMPLATES)
    assert [name.split()[0] for name in sorted(TEMPLATES)] == [f"{n:02}" for n in range(1, len(TEMPLATES) + 1)]
    for path in WORKFLOWS.glob("*.json"):
        with Image.open(path.with_suffix(".jpg")) as picture:
            assert picture.size == (512, 512)
