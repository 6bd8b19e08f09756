"""The `idea` command on a tiny base model, with real face models and photos."""

import csv
import json
import os
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from face_models import photo
from helpers import RunsCode, published, require_same
from idea_command import QUICK, base, faces, run, train
from PIL import Image
from safetensors.torch import load_file, save_file

from idea_core import Identity
from idea_core.headless.cli import idea
from idea_core.headless.cli.generate import folder_name
from idea_core.headless.cli.options import TRAIN_OPTIONS, training_of
from idea_core.headless.jobs import FaceSource, PhotoSource
from idea_core.training.config import PRESETS


@pytest.fixture(scope="module")
def alice(studio, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("trained") / "alice.safetensors"
    train(studio, path)
    return path


@pytest.mark.parametrize("preset", ["likeness", "paper"])
def test_every_setting_of_a_training_is_an_option(preset):
    """All of a preset's values on top of another one's give the preset."""
    wanted, given = PRESETS[preset], ["--photos", "x", "--name", "x", "--model", "x"]
    flags = {option.name: option.opts[0] for option in idea.commands["train"].params}
    for field, value in wanted.as_dict().items():
        given += [] if value is None else [flags[field], str(value)]
    whole = idea.make_context("idea", ["train", *given])
    params = idea.commands["train"].make_context("train", given, parent=whole).params
    training = training_of(**{option.name: params[option.name] for option in TRAIN_OPTIONS})
    assert training.config == wanted and training.captions == "photo"


def test_published_options_have_their_published_values():
    given = "--pretrained_model_name_or_path sd --train_data_dir photos --placeholder_token ann --n_persudo_tokens 3 "
    given += "--max_train_steps=7 --train-batch-size 2 --reg_weight 0.1 --learnable_property face --mixed_precision no "
    given += "--gradient_checkpointing --adam_weight_decay=0.02 --validation_steps 5 --validation_prompt --{}"
    whole = idea.make_context("idea", ["train", "x"])
    params = idea.commands["train"].make_context("train", given.split(), parent=whole).params
    training = training_of(**{option.name: params[option.name] for option in TRAIN_OPTIONS})
    settings = {"num_tokens": 3, "steps": 7, "batch_size": 2, "regularizer_weight": 0.1, "weight_decay": 0.02}
    assert training.config == replace(PRESETS["fast"], **settings)
    assert training.captions == "paper" and training.gradient_checkpointing
    assert (params["path"], params["places"]) == (Path("sd"), (Path("photos"),))
    assert [params[key] for key in ("name", "dtype", "every", "preview_prompt")] == ["ann", "fp32", 5, ("--{}",)]
    after = idea.commands["info"].make_context("info", ["--", "--a_b"], parent=whole).params
    assert after["file"] == Path("--a_b")


def test_photos_to_face_embedding(studio, tmp_path):
    path = tmp_path / "alice.id.safetensors"
    preview = tmp_path / "preview"
    found = run("encode", studio / "photos" / "alice", "-o", path, "--preview", preview, *faces(studio), "--json")
    assert len(found["photos"]) == 3 and all(photo["to_mean"] > 0.99 for photo in found["photos"])
    assert [path.name for path in sorted(preview.iterdir())] == [f"00{n}_{n}.faces.png" for n in range(3)]
    assert run("info", path, "--json")["photos"] == 3
    said = run("encode", studio / "nobody.png", "-o", path, *faces(studio), code=1).stderr
    assert "Expected a face in photo 0" in said and "nobody.png" in said


@pytest.mark.parametrize("command", ["encode", "evaluate", "train"])
def test_a_face_model_that_cannot_be_opened_is_named(studio, tmp_path, command):
    shutil.copytree(studio / "faces", tmp_path / "faces")
    (tmp_path / "faces" / "det_test.onnx").write_text("<!DOCTYPE html><html>404</html>")
    photos, output = studio / "photos" / "alice", ["-o", tmp_path / "out.safetensors"]
    arguments = {
        "encode": [photos],
        "evaluate": [photos, "--reference", photos],
        "train": [*base(studio), "--photos", photos, "--name", "alice", *QUICK],
    }[command]
    said = run(command, *arguments, *output, "--face-models", tmp_path / "faces", code=1).stderr
    assert "Error: Expected a face detector (SCRFD) model in" in said and "det_test.onnx (a web page)" in said
    shutil.copy(studio / "faces" / "det_test.onnx", tmp_path / "faces" / "scrfd.onnx")
    run(command, *arguments, *output, "--face-models", tmp_path / "faces")


def test_the_right_faces_are_encoded(studio, tmp_path):
    alice, group = tmp_path / "alice.id.safetensors", tmp_path / "group.id.safetensors"
    run("encode", studio / "photos" / "alice", "-o", alice, *faces(studio))
    people = [(160, 160, 90, 0.0, (205, 150, 110)), (440, 160, 130, 25.0, (120, 80, 60))]
    Image.fromarray(photo(width=640, height=320, faces=people)).save(tmp_path / "both.png")
    photos = [studio / "photos" / "alice", tmp_path / "both.png", studio / "nobody.png"]
    options = ["-o", group, *faces(studio), "--skip", "--crops", tmp_path / "crops", "--crop-size", 64]
    nearest = run("encode", *photos, *options, "--face", "nearest", "--nearest-to", alice, "--json")["photos"]
    assert [row["left_out"][:4] for row in nearest] == ["", "", "", "", "none"]
    assert nearest[3]["to_mean"] > 0.99 and run("info", group, "--json")["photos"] == 4
    assert [path.name for path in sorted((tmp_path / "crops").iterdir())] == [
        *(f"00{n}_{n}.png" for n in range(3)),
        "003_both.png",
    ]
    said = run("encode", *photos, *options, "--leave-out-outliers").stdout.splitlines()
    assert said[3].endswith("looks like another person: left out") and "both.png: face 2 of 2" in said[3]
    assert said[5].startswith("3 of 5 photos used")
    refused = run("encode", *photos, *options, "--face", "nearest", code=1).stderr
    assert "Expected ID_EMBEDS that the face is nearest to, got none" in refused


def test_a_macs_folder_of_photos_and_a_broken_one(studio, tmp_path):
    photos = tmp_path / "photos"
    shutil.copytree(studio / "photos" / "alice", photos)
    for name in ("._0.png", ".DS_Store"):
        (photos / name).write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X" + bytes(60))
    output = ["-o", tmp_path / "a.safetensors"]
    assert len(run("encode", photos, *output, *faces(studio), "--json")["photos"]) == 3
    run("train", *base(studio), *faces(studio), "--photos", photos, "--name", "alice", *output, *QUICK)
    assert Identity.load(output[1]).training["photos"] == 3
    (photos / "9.jpg").write_bytes(b"")
    refused = run("encode", photos, *output, *faces(studio), code=1).stderr
    assert "Expected an image in 9.jpg, got an empty file. Leave the file out" in refused
    rows = run("encode", photos, *output, *faces(studio), "--skip", "--json")["photos"]
    assert [row["left_out"] for row in rows] == ["", "", "", "an empty file"] and rows[3]["photo"].endswith("9.jpg")
    said = run("encode", photos, *output, *faces(studio), "--skip").stdout.splitlines()
    assert said[0].endswith("9.jpg: left out, not read: an empty file") and said[4].startswith("3 of 4 photos used")


def test_prompts_that_are_too_long_are_said_before_the_training(studio, tmp_path):
    photos = tmp_path / "photos"
    shutil.copytree(studio / "photos" / "alice", photos)
    long = "in a red hat " * 9
    options = ["--name", "alice", *QUICK, "-o", tmp_path / "a.safetensors"]
    train = ["train", *base(studio), *faces(studio), "--photos", photos, *options]
    looks = ["--preview-every", "2", "--preview-prompt", f"{{}} {long}"]
    assert "got 83 in '{} in a red hat in a" in run(*train, *looks, code=1).stderr
    (photos / "1.txt").write_text(long)
    said = run(*train, code=1).stderr
    assert "Error: Expected captions of at most 75 tokens, got" in said and "for photo 1.png, its note included" in said
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_a_trained_person_is_one_file(studio, alice):
    identity = Identity.load(alice)
    assert (identity.name, identity.base_model, identity.base_checkpoint) == ("alice", "sd1", "model")
    assert len(identity.base_ref.base_hash) == 64 and identity.training["photos"] == 3
    assert run("info", alice, "--json")["parts"] == ["tokens", "adapter", "kv", "id_embeds"]


def test_the_same_inputs_are_trained_once(studio, alice, tmp_path):
    changed = alice.stat().st_mtime_ns
    assert "already" in train(studio, alice).stdout
    assert alice.stat().st_mtime_ns == changed
    forced = train(studio, alice, "--force", "--json")
    assert forced["digest"] == Identity.load(alice).digest() and alice.stat().st_mtime_ns != changed
    assert train(studio, tmp_path / "b.safetensors", "--seed", "5", "--json")["digest"] != forced["digest"]


def test_a_face_embedding_needs_no_face_models(studio, tmp_path):
    face = tmp_path / "a.id.safetensors"
    run("encode", studio / "photos" / "alice", "-o", face, *faces(studio))
    arguments = ["--photos", studio / "photos" / "alice", "--id-embeds", face, "--crop", "center", "--name", "alice"]
    out = tmp_path / "a.safetensors"
    run("train", *base(studio), *arguments, "--face-models", tmp_path, "-o", out, *QUICK)
    assert Identity.load(out).id_embeds is not None


ALONE = """
import sys
reached = []
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "urllib.Request", "subprocess.Popen", "os.system"):
        if "Popen" not in event:  # libraries ask the machine about itself, and do without the answer
            reached.append(event)
        raise PermissionError(f"{event} {arguments}")
sys.addaudithook(refuse)
from idea_core.headless.cli import idea
for command in (line.split("\\n") for line in sys.stdin.read().split("\\n\\n")):
    idea(command, standalone_mode=False)
sys.exit(f"reached: {reached}" if reached else 0)
"""


def test_commands_need_neither_network_nor_other_programs(studio, tmp_path):
    output = tmp_path / "alice.safetensors"
    photos = studio / "photos" / "alice"
    options = ["--photos", photos, "--name", "alice", "-o", output, *QUICK]
    small = ["--steps", "1", "--width", "16", "--height", "16"]
    commands = [
        ["encode", photos, "-o", tmp_path / "face.safetensors", *faces(studio)],
        ["train", *base(studio), *faces(studio), *options],
        ["generate", *base(studio), "--identity", output, "--prompt", "a {}", *small, "--save-dir", tmp_path / "drawn"],
        ["info", output],
    ]
    said = "\n\n".join("\n".join(map(str, command)) for command in commands)
    done = subprocess.run([sys.executable, "-c", ALONE], input=said, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert output.exists()


def test_tilted_faces_are_trained_on_as_they_are_or_turned_upright(studio, tmp_path):
    Image.fromarray(photo(width=480, height=480, faces=[(240, 240, 100, 30.0)])).save(tmp_path / "tilted.png")
    engine, digests = FaceSource(studio / "faces", provider="cpu").load(), set()
    for crop, tilt in (("face", 30), ("upright", 0)):
        prepared = PhotoSource((tmp_path,), crop=crop, resolution=256).prepare(FaceSource(studio / "faces"))
        (face,) = engine.detect((prepared.photos[0].images[0].numpy() * 255).astype(np.uint8))
        assert abs(abs(np.rad2deg(face.tilt)) - tilt) < 3
        options = ["--photos", tmp_path, "--crop", crop, "--name", "alice", "-o", tmp_path / f"{crop}.safetensors"]
        digests.add(run("train", *base(studio), *faces(studio), *options, *QUICK, "--json")["digest"])
    assert len(digests) == 2


def test_the_paper_preset_is_the_published_command(studio, tmp_path):
    path = tmp_path / "a.safetensors"
    arguments = [*base(studio), *faces(studio), "--photos", studio / "photos" / "alice", "--name", "alice", "-o", path]
    run("train", *arguments, "--preset", "paper", "--steps", "1", "--resolution", "16", "--phrase", "ab")
    training = Identity.load(path).training
    assert {"batch_size": 8, "token_lr": 0.012, "regularizer_weight": 8e-4, "kv_lr": 0}.items() <= training.items()


def test_training_leaves_a_state_that_the_next_run_takes_up(studio, tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    train(studio, tmp_path / "whole.safetensors", "--steps", "4")
    monkeypatch.setattr(
        "idea_core.training.trainer.Trainer.identity", lambda *_, **__: (_ for _ in ()).throw(OSError("cut"))
    )
    train(studio, path, "--steps", "4", "--save-every", "3", code=1)
    monkeypatch.undo()
    assert path.with_suffix(".training").exists() and not path.exists()
    again = train(studio, path, "--steps", "4", "--save-every", "3")
    assert f"ID-EA: resuming after step 4 from {path.with_suffix('.training')}" in again.stderr
    assert Identity.load(path).digest() == Identity.load(tmp_path / "whole.safetensors").digest()
    assert not path.with_suffix(".training").exists()


def test_a_name_is_one_name_in_every_normal_form(studio, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    composed, apart = "Jos\u00e9", "Jose\u0301"
    photos = (tmp_path / apart).absolute()
    shutil.copytree(studio / "photos" / "alice", photos)
    arguments = [*base(studio), *faces(studio), *QUICK]
    run("train", *arguments, "--photos", tmp_path / composed, "--name", apart)
    file = tmp_path / f"{composed}.safetensors"
    file.rename(tmp_path / f"{apart}.safetensors")  # as a Mac writes it
    draw = ["generate", *base(studio), "--steps", "1", "--count", "1", "--save-dir", tmp_path / "out", "--json"]
    said = [run(*draw, "--identity", file, "--prompt", f"a <{spelled}>")["images"] for spelled in (composed, apart)]
    assert np.array_equal(*[np.asarray(Image.open(image["path"])) for (image,) in said])
    assert len(list((tmp_path / "out").iterdir())) == 1
    people = tmp_path / "people.jsonl"
    lines = [{"name": spelled, "photos": spelled, "seed": seed} for seed, spelled in enumerate((composed, apart))]
    people.write_text("\n".join(map(json.dumps, lines)))
    found = json.loads(run("batch", people, *arguments, "--save-dir", tmp_path, "--json", code=1).stdout)["people"]
    assert [row["status"] for row in found] == ["finished before", "failed"]
    assert "Line 1 has the same output" in found[1]["message"]
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == [f"{apart}.safetensors"]


def test_what_is_nearly_a_name_is_said_once_with_what_to_write(studio, alice, tmp_path):
    quick = ["--steps", "1", "--count", "1", "--save-dir", tmp_path / "out", "--negative", "<alice:2>"]
    prompts = ["--prompt", "a photo of alice", "--prompt", "(alice:1.2) again", "--prompt", "a dog"]
    said = run("generate", *base(studio), "--identity", alice, *prompts, *quick).stderr
    assert [line for line in said.splitlines() if line.startswith("Warning")] == [
        "Warning: 'a dog' names none of <alice>.",
        "Warning: <alice:2> stays plain text. For the person write (<alice>:2).",
        "Warning: alice stays plain text. For the person write <alice>.",
    ]
    pictures = []
    for prompt in ("a <alice>", "a (<alice>:1)", "a (<alice>:1.5)"):
        drawn = run("generate", *base(studio), "--identity", alice, "--prompt", prompt, *quick, "--json")["images"]
        pictures.append(np.asarray(Image.open(drawn[0]["path"])))
    assert np.array_equal(pictures[0], pictures[1]) and not np.array_equal(pictures[0], pictures[2])


def test_a_long_prompt_of_any_script_is_a_folders_name(tmp_path):
    (tmp_path / folder_name("आरती का चित्र " * 40)).mkdir()


def test_pictures_on_the_way_change_no_result(studio, tmp_path, alice):
    path = tmp_path / "alice.safetensors"
    seen = train(studio, path, "--preview-prompt", "{} smiling", "--preview-every", "1", "--json")
    assert seen["digest"] == Identity.load(alice).digest()
    assert len(list((tmp_path / "alice" / "previews").glob("step_*.png"))) == 2


def test_pictures_go_to_a_folder_of_their_prompt(studio, alice, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("{} wearing an oversized sweater\n\n<alice>: a/b?\n", "utf-8-sig")
    quick = ["--steps", "2", "--num-images-per-prompt", "2", "--save-dir", tmp_path / "out"]
    arguments = ["generate", *base(studio), "--identity", alice, "--prompt-file", prompts, *quick, "--seed", "3"]
    images = run(*arguments, "--n-iter", "2", "--json")["images"]
    assert [image["seed"] for image in images] == [3, 4, 5, 6] * 2
    folder = tmp_path / "out" / "{}_wearing_an_oversized_sweater"
    assert [path.name for path in sorted(folder.iterdir())] == ["0.png", "1.png", "2.png", "3.png"]
    with Image.open(folder / "1.png") as picture:
        said = json.loads(picture.info["id-ea"])
    assert (said["prompt"], said["seed"], said["kv_strength"]) == ("{} wearing an oversized sweater", 4, 1.0)
    before = (folder / "0.png").read_bytes()
    again = run(*arguments, "--json")["images"]
    assert Path(again[0]["path"]).name == "4.png" and (folder / "0.png").read_bytes() == before
    assert (folder / "4.png").read_bytes() == before


@pytest.mark.parametrize(
    ("prompt", "name"),
    [("a b", "a_b"), ("../../etc", "etc"), ('x"<>|y', "xy"), ("...", "_"), ("é" * 300, "é" * 120), ("a\nb", "ab")],
)
def test_folder_names_stay_in_their_place(prompt, name):
    assert folder_name(prompt) == name


def test_several_people_and_strangers(studio, alice, tmp_path):
    bob = tmp_path / "bob.safetensors"
    train(studio, bob, name="bob")
    quick = ["--steps", "1", "--count", "1", "--save-dir", tmp_path]
    people = ["generate", *base(studio), "--identity", alice, "--identity", bob, *quick]
    assert run(*people, "--prompt", "<alice> and <bob>").stderr == ""
    said = run(*people, "--prompt", "a dog", "--prompt", "<eve> and <bob>").stderr
    assert "'a dog' names none of <alice>, <bob>." in said and "<eve> in '<eve> and <bob>' is none of" in said
    assert "Name each person: <alice>, <bob>." in run(*people, "--prompt", "{} here", code=1).stderr


def test_a_published_file_generates(studio, tmp_path):
    published(tmp_path / "learned_embeds.bin", width=768)
    quick = ["--steps", "1", "--count", "1", "--save-dir", tmp_path, "--prompt", "{} smiling"]
    run("generate", *base(studio), "--identity", tmp_path / "learned_embeds.bin", *quick)


def test_evaluation(studio, tmp_path):
    images = tmp_path / "{}_in_paris"
    images.mkdir()
    for number, source in enumerate(["photos/alice/1.png", "photos/bob/1.png", "nobody.png"]):
        Image.open(studio / source).save(images / f"{number}.png")
    arguments = ["evaluate", images, "--reference", studio / "photos" / "alice", "-o", tmp_path / "report"]
    result = run(*arguments, "--clip", studio / "clip", *faces(studio), "--device", "cpu", "--json")
    same, other, nobody = json.loads((tmp_path / "report" / "scores.json").read_text())["images"]
    assert same["mean_similarity"] > 0.99 > other["mean_similarity"] and (
        nobody["mean_similarity"],
        nobody["faces"],
    ) == (None, 0)
    assert result["detection_rate"] == pytest.approx(2 / 3)
    assert result["mean_similarity_strict"] == pytest.approx((same["mean_similarity"] + other["mean_similarity"]) / 3)
    assert result["mean_similarity_detected"] == pytest.approx((same["mean_similarity"] + other["mean_similarity"]) / 2)
    assert -1 <= result["prompt_similarity"] <= 1
    with open(tmp_path / "report" / "scores.csv") as table:
        rows = list(csv.DictReader(table))
    assert [row["faces"] for row in rows] == ["1", "1", "0"] and rows[0]["prompt"] == "{} in paris"
    page = (tmp_path / "report" / "report.html").read_text()
    assert page.count("data:image/jpeg") == 6 and "no face" in page and "http" not in page
    assert page.count("<main>") == page.count("</main>") == 1


def test_evaluation_against_a_face_embedding(studio, tmp_path):
    face = tmp_path / "alice.id.safetensors"
    run("encode", studio / "photos" / "alice", "-o", face, *faces(studio))
    places = ["--reference", face, "-o", tmp_path / "report"]
    result = run("evaluate", studio / "photos" / "alice", *places, *faces(studio), "--json")
    assert result["mean_similarity_strict"] > 0.99 and result["prompt_similarity"] is None
    text = run("evaluate", studio / "photos" / "alice", *places, *faces(studio)).stdout
    assert "Prompt similarity needs --clip, the folder of a CLIP model." in text
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.json").write_text("{}")
    for folder, got in (("nope", "no such folder"), ("half", "no model.safetensors")):
        clip = ["--clip", tmp_path / folder]
        said = run("evaluate", studio / "photos" / "alice", *places, *faces(studio), *clip, code=1).stderr
        assert f"a CLIP model with its tokenizer in {tmp_path / folder}, got {got}. Give the folder of one" in said


def test_info_and_convert(alice, tmp_path):
    lora, tokens, back = tmp_path / "kv.safetensors", tmp_path / "alice.pt", tmp_path / "back.safetensors"
    assert run("convert", alice, "-o", lora, "--to", "kohya", "--json")["left_out"] == ["pseudo-tokens", "Adapter"]
    said = run("convert", alice, "-o", tokens, "--to", "a1111")
    assert "a1111 has no place for: Adapter, K/V deltas." in said.stderr
    run("convert", tokens, "-o", back, "--kv", lora)
    whole, part = Identity.load(alice), Identity.load(back)
    assert torch.equal(part.tokens["clip_l"], whole.tokens["clip_l"])
    require_same(part.kv, whole.kv)
    assert run("info", tokens, "--json")["format"] == "textual inversion"
    assert "has its own" in run("convert", alice, "-o", back, "--kv", lora, code=1).stderr


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_every_precision_trains_and_generates(studio, tmp_path, dtype):
    path = tmp_path / "a.safetensors"
    train(studio, path, "--dtype", dtype, "--preview-prompt", "{}", "--preview-every", "2")
    quick = ["--steps", "2", "--count", "1", "--save-dir", tmp_path / "out", "--dtype", dtype]
    (image,) = run("generate", *base(studio), "--identity", path, "--prompt", "{}", *quick, "--json")["images"]
    assert len(Image.open(image["path"]).getcolors(1 << 16)) > 9


def _no_unet(studio: Path, folder: Path) -> Path:
    broken = shutil.copytree(studio / "model", folder / "broken")
    next((broken / "unet").glob("*.safetensors")).unlink()
    return broken


def _without_a_weight(part: str):
    def damage(studio: Path, folder: Path) -> Path:
        broken = shutil.copytree(studio / "model", folder / "broken")
        (path,) = (broken / part).glob("*.safetensors")
        weights = load_file(path)
        weights.popitem()
        save_file(weights, path, {"format": "pt"})
        return broken

    return damage


def _cut_off(studio: Path, folder: Path) -> Path:
    broken = shutil.copytree(studio / "model", folder / "broken")
    path = broken / "text_encoder" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])
    return broken


def _with_code(studio: Path, folder: Path) -> Path:
    broken = shutil.copytree(studio / "model", folder / "broken")
    index = json.loads((broken / "model_index.json").read_text())
    index["unet"] = ["own_unet", "Net"]
    (broken / "model_index.json").write_text(json.dumps(index))
    (broken / "unet" / "own_unet.py").write_text(f"import os; os.mkdir({str(folder / 'ran')!r})\nclass Net: pass\n")
    return broken


def _odd_index(_studio: Path, folder: Path) -> Path:
    (folder / "model_index.json").write_text("{")
    return folder


def _malicious(_studio: Path, folder: Path) -> Path:
    torch.save({"state_dict": RunsCode(folder / "ran")}, folder / "bad.ckpt")
    return folder / "bad.ckpt"


def _other_weights(_studio: Path, folder: Path) -> Path:
    published(folder / "tokens.ckpt")
    return folder / "tokens.ckpt"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda studio, folder: folder / "none", "Expected a model at"),
        (lambda studio, folder: folder, "the folder of a diffusers pipeline, with model_index.json"),
        (_no_unet, "Expected a whole pipeline in"),
        (_without_a_weight("text_encoder"), "Expected all weights in"),
        (_without_a_weight("unet"), "Expected all weights in"),
        (_without_a_weight("vae"), "Expected all weights in"),
        (_cut_off, "Expected a whole pipeline in"),
        (_with_code, "Expected parts of diffusers and transformers alone in"),
        (_odd_index, "Expected a model_index.json that names a pipeline's parts in"),
        (_malicious, "mkdir in it, which could run code"),
        (_other_weights, "Expected a UNet under model.diffusion_model. in tokens.ckpt"),
    ],
)
def test_what_is_no_base_model_is_refused(studio, tmp_path, model, message):
    arguments = ["--photos", studio / "photos" / "alice", "--name", "alice", *faces(studio), *QUICK]
    refused = run("train", "--model", model(studio, tmp_path), *arguments, code=1)
    assert message in refused.stderr
    assert not (tmp_path / "ran").exists()


def test_bad_input_is_said(studio, alice, tmp_path):
    out = ["-o", tmp_path / "x.safetensors", "--name", "x", *QUICK]
    empty = tmp_path / "empty"
    empty.mkdir()
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    for photos, message in [(empty, "at least one photo"), (tmp_path / "none", "photos at"), (broken, "an image in")]:
        assert message in run("train", *base(studio), *faces(studio), "--photos", photos, *out, code=1).stderr
    bad = ["train", *base(studio), *faces(studio), "--photos", studio / "photos" / "alice"]
    assert "a name of 1 to 64 letters" in run(*bad, "--name", "a b", code=1).stderr
    assert "resolution a number that 8 divides" in run(*bad, "--name", "a", "--resolution", "17", code=1).stderr
    assert "at least 1 step without an ID-Enhancer" in run(*bad, "--name", "a", *QUICK, "--steps", "0", code=1).stderr
    assert "a person of 0 steps to refine" in run(*bad, "--name", "a", *QUICK, "--refine", "1", code=1).stderr
    assert "--names and --phrase" in run(*bad, "--name", "a", "--phrase", "x", "--names", broken, code=2).stderr
    lost = ["--photos", studio / "photos" / "alice", "--face-models", empty]
    assert "a face model pack in" in run("train", *base(studio), *lost, *out, code=1).stderr
    draw = ["generate", *base(studio), "--prompt", "{}"]
    assert "Choose a file that exists" in run(*draw, "--identity", tmp_path / "none", code=1).stderr
    assert "Give --prompt or --prompt-file" in run(*draw[:-2], "--identity", alice, code=2).stderr
    refused = json.loads(run(*draw, "--identity", broken, "--json", code=1).stdout)["error"]
    assert refused["expected"] == "weights in broken.jpg, as .safetensors, .ckpt, .pt or .bin"


def test_an_output_that_cannot_be_written_is_said_before_training(studio, tmp_path):
    folder = tmp_path / "folder.safetensors"
    folder.mkdir()
    for output in (folder, tmp_path / "alice", tmp_path / "alice.training"):
        assert "an output file that ends in .safetensors" in train(studio, output, code=1).stderr
    assert not (tmp_path / "alice").exists()


def test_another_face_model_is_another_training(studio, alice, tmp_path):
    copy = tmp_path / "faces"
    shutil.copytree(studio / "faces", copy)
    (path,) = copy.glob("rec*.onnx")
    model = onnx.load(path)
    model.doc_string = "another"
    onnx.save(model, path)
    changed = alice.stat().st_mtime_ns
    train(studio, alice, "--face-models", copy)
    assert alice.stat().st_mtime_ns != changed
    train(studio, alice)


def test_a_full_disk_leaves_the_old_file_whole(studio, alice, tmp_path):
    path = tmp_path / "alice.safetensors"
    path.write_bytes(alice.read_bytes())

    def small_files_only():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))

    command = [sys.executable, "-c", "from idea_core.headless.cli import idea; idea()", "convert", alice, "-o", path]
    result = subprocess.run([*command, "--name", "eve"], preexec_fn=small_files_only, capture_output=True, text=True)
    assert result.returncode == 1 and "Error: " in result.stderr and "Traceback" not in result.stderr
    assert path.read_bytes() == alice.read_bytes()
    assert os.listdir(tmp_path) == ["alice.safetensors"]


def test_many_people_in_one_file(studio, tmp_path):
    lines = [
        {"name": "alice", "photos": str(studio / "photos" / "alice")},
        {
            "name": "bob",
            "photos": [str(studio / "photos" / "bob" / "0.png")],
            "steps": 3,
            "output": "robert.safetensors",
        },
        {"name": "eve", "photos": "nowhere"},
        {"name": "alice", "photos": str(studio / "photos" / "carol")},
        {"name": "dan", "photos": "x", "stpes": 3},
        {"photos": "x"},
        {"name": "kim", "photos": "x", "steps": 2.5},
        {"name": "lee", "photos": str(studio / "photos" / "alice"), "heads": 7},
    ]
    people = tmp_path / "people.jsonl"
    people.write_text("\n".join(map(json.dumps, lines)) + "\nnot json\n")
    arguments = ["batch", people, *base(studio), *faces(studio), *QUICK, "--save-dir", tmp_path / "out"]
    threads = torch.get_num_threads()
    try:
        first = run(*arguments, "--json", code=1)
        again = run(*arguments, code=1).stdout
    finally:
        torch.set_num_threads(threads)
    outcomes = json.loads(first.stdout)["people"]
    assert [outcome["status"] for outcome in outcomes] == ["trained", "trained", *["failed"] * 7]
    messages = [outcome["message"] for outcome in outcomes[2:]]
    expected = ["photos at", "Line 1 has the same output", "got stpes besides", "got no name"]
    expected += ["steps a whole number, got 2.5", "heads to divide the width 768, got 7"]
    expected += ['Expected a JSON object, got \'not json\'. Write {"name": …, "photos": …}.']
    assert all(part in message for part, message in zip(expected, messages))
    assert Identity.load(tmp_path / "out" / "robert.safetensors").training["steps"] == 3
    assert again.count("finished before") == 2 and "2 of 9 people done" in again


def test_a_command_whose_package_was_left_out_is_not_there(tmp_path):
    """Such as `idea demo` in the archive of ComfyUI's registry."""
    known = tmp_path / "gone-1.0.dist-info"
    known.mkdir()
    (known / "METADATA").write_text("Metadata-Version: 2.1\nName: gone\nVersion: 1.0\n")
    (known / "entry_points.txt").write_text("[idea.commands]\ngone = package_that_was_left_out.command:gone\n")
    script = "from idea_core.headless.cli import idea; idea(['--help'])"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    said = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert "demo" in said.stdout and "gone" not in said.stdout
