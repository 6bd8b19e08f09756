"""The person's file: round trips, checks, and what a failed write leaves behind."""

import base64
import io
import json
import os
import re

import numpy as np
import pytest
import safetensors.torch
import torch
from helpers import K, V, make_identity, rewrite
from PIL import Image

from idea_core import Identity
from idea_core.errors import IdentityFileError
from idea_core.files.tensorfile import read_tensors, write_tensors
from idea_core.identity.checks import require_finite
from idea_core.identity.describe import describe
from idea_core.identity.thumbnail import decode_thumbnail, encode_thumbnail


@pytest.mark.parametrize("base_model", ["sd1", "sd2", "sdxl"])
def test_save_load_save_gives_equal_bytes(tmp_path, base_model):
    identity = make_identity(base_model)
    first = identity.save(tmp_path / "first.safetensors")
    loaded = Identity.load(first)
    second = loaded.save(tmp_path / "second.safetensors")
    assert first.read_bytes() == second.read_bytes()
    assert loaded.metadata() == identity.metadata()
    assert loaded.digest() == identity.to(torch.float16).digest()
    assert {tensor.dtype for tensor in loaded.tensors().values()} == {torch.float16}


def test_single_precision_on_request(tmp_path):
    identity = make_identity()
    loaded = Identity.load(identity.save(tmp_path / "a.safetensors", dtype=torch.float32))
    assert loaded.digest() == identity.digest()


def test_an_identity_without_face_and_kv(tmp_path):
    loaded = Identity.load(make_identity(id_embeds=None, kv={}).save(tmp_path / "a.safetensors"))
    assert loaded.id_embeds is None and not loaded.kv


def test_plain_textual_inversion_has_tokens_alone(tmp_path):
    loaded = Identity.load(
        make_identity(anchor=None, grounding=None, adapter={}, kv={}).save(tmp_path / "a.safetensors")
    )
    assert set(loaded.tensors()) == {"clip_l", "id_embeds"} and not loaded.has_adapter and loaded.num_tokens == 2


def test_metadata_says_what_it_fits(tmp_path):
    path = make_identity("sd2", prediction="v", clip_layer=-2).save(tmp_path / "a.safetensors")
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata()
    expected = {"format": "id-ea", "format_version": "3", "base_model": "sd2", "name": "alice"}
    expected |= {"num_tokens": "2", "cross_attention_dim": "1024"}
    expected |= {"beta": "0.4", "heads": "8", "prediction": "v", "clip_layer": "-2", "base_hash": "0" * 64}
    assert expected.items() <= metadata.items()
    assert json.loads(metadata["training"])["steps"] == 25


def test_a_failed_write_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = make_identity().save(tmp_path / "a.safetensors")
    before = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device: .*a.safetensors"):
        make_identity(name="bob").save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("size", [0, 4, 100, 5000, -1])
def test_a_truncated_file_is_refused(tmp_path, size):
    path = make_identity().save(tmp_path / "a.safetensors")
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(IdentityFileError, match="Expected a whole safetensors file, got .* in a.safetensors"):
        Identity.load(path)


DAMAGE = {
    "foreign": (lambda t, m: m.clear(), "a file of format id-ea, got format None"),
    "version": (lambda t, m: m.update(format_version="9"), "format version 3, got 9 in a.safetensors. Update ID-EA"),
    "missing tensor": (lambda t, m: t.pop("grounding"), "grounding and adapter, or neither, got one of them"),
    "missing adapter key": (lambda t, m: t.pop("adapter.gamma"), r"adapter.gamma of shape \(1,\), got none"),
    "missing metadata": (lambda t, m: m.pop("prediction"), "an entry 'prediction', got none"),
    "odd metadata": (lambda t, m: m.update(heads="many"), "metadata values of the right kind"),
    "odd training": (lambda t, m: m.update(training="{"), "metadata values of the right kind"),
    "deep training": (lambda t, m: m.update(training="[" * 50_000), "metadata values of the right kind"),
    "heads": (lambda t, m: m.update(heads="7"), "heads to divide the width 768, got 7"),
    "no heads": (lambda t, m: m.update(heads="0"), "heads to divide the width 768, got 0"),
    "training is no object": (lambda t, m: m.update(training="5"), "training to be a JSON object, got 5"),
    "beta": (lambda t, m: m.update(beta="nan"), "beta to be finite, got nan"),
    "base": (lambda t, m: m.update(base_model="sd9"), "base_model to be one of sd1, .*, got 'sd9'"),
    "other base": (lambda t, m: m.update(base_model="sd2"), "an entry 'clip_h'"),
    "width": (lambda t, m: m.update(cross_attention_dim="1024"), "cross_attention_dim = 768, got 2, 1024"),
    "shape": (lambda t, m: t.update(grounding=torch.zeros(2, 700)), r"grounding of shape \(2, 768\), got \(2, 700\)"),
    "anchor": (lambda t, m: t.update(anchor=torch.zeros(768)), r"anchor of shape \(2, 768\), got \(768,\)"),
    "flat tokens": (lambda t, m: t.update(clip_l=torch.zeros(768)), r"of shape \(n, d_enc\), got \(768,\)"),
    "no pseudo-token": (lambda t, m: t.update(clip_l=torch.zeros(0, 768)), r"of shape \(n, d_enc\), got \(0, 768\)"),
    "dtype": (lambda t, m: t.update(anchor=torch.zeros(2, 768, dtype=torch.int32)), "anchor in half or single"),
    "nan": (lambda t, m: t["clip_l"].fill_(torch.nan), "clip_l to be finite"),
    "inf": (lambda t, m: t[f"{V}.diff"].fill_(torch.inf), "attn2.to_v.diff to be finite"),
    "extra": (lambda t, m: t.update(surplus=torch.zeros(2)), "only keys of an identity, got surplus"),
    "kv alone": (lambda t, m: t.pop(f"{K}.lora_up.weight"), "only keys of an identity"),
    "kv other layer": (lambda t, m: t.update({f"{K.replace('2', '1')}.diff": torch.zeros(3, 768)}), "only keys"),
    "kv rank": (lambda t, m: t.update({f"{K}.lora_down.weight": torch.zeros(4, 768)}), r"shape \(8, 768\), got"),
    "name": (lambda t, m: m.update(name="../alice"), r"a name of 1 to 64 letters, digits, _, - or ', got '../alice'"),
}
DAMAGE |= {f"no {key}": (lambda t, m, key=key: m.pop(key), "got") for key in make_identity().metadata()}


@pytest.mark.parametrize(("change", "message"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_refused_by_name(tmp_path, change, message):
    path = make_identity().save(tmp_path / "a.safetensors")
    rewrite(path, change)
    with pytest.raises(IdentityFileError, match=message):
        Identity.load(path)


def test_a_file_that_is_no_safetensors_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"PK\x03\x04" + bytes(500))
    with pytest.raises(IdentityFileError, match="a whole safetensors file"):
        Identity.load(path)


def test_what_was_loaded_does_not_hang_on_the_file(tmp_path):
    path = make_identity().save(tmp_path / "a.safetensors")
    loaded = Identity.load(path)
    digest = loaded.digest()
    with open(path, "r+b") as file:
        file.seek(-1000, 2)
        file.write(bytes(1000))
    assert loaded.digest() == digest


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="Choose a file that exists"):
        Identity.load(tmp_path / "a.safetensors")


@pytest.mark.parametrize("name", ["alice", "Bob-2", "Zoë", "李雷", "a" * 64])
def test_names_that_work(name):
    assert make_identity(name=name).trigger == f"<{name}>"


@pytest.mark.parametrize("name", ["", "a b", "a>b", "(a:1.2)", "a/b", "-a", "a" * 65, "a\n", "embedding:a"])
def test_names_that_do_not(name):
    with pytest.raises(IdentityFileError, match="Choose a name such as alice"):
        make_identity(name=name)


def test_overflow_in_half_precision_is_refused(tmp_path):
    identity = make_identity(grounding=torch.full((2, 768), 1e6))
    with pytest.raises(IdentityFileError, match="grounding to be finite"):
        identity.save(tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_one_value_that_is_not_finite_is_found_among_many(dtype, value):
    tensors = {
        "a": torch.randn(300, 700).to(dtype),
        "b": torch.zeros(0, dtype=dtype),
        "c": torch.zeros((), dtype=dtype),
    }
    require_finite(tensors)
    tensors["a"][217, 431] = value
    with pytest.raises(IdentityFileError, match="a to be finite"):
        require_finite(tensors)


def test_a_thumbnail_travels_in_the_file(tmp_path):
    picture = Image.new("RGBA", (640, 480), (200, 30, 40, 255))
    identity = make_identity(thumbnail=encode_thumbnail(picture))
    loaded = Identity.load(identity.save(tmp_path / "a.safetensors"))
    shown = decode_thumbnail(loaded.thumbnail)
    assert shown.size == (256, 192) and np.abs(np.asarray(shown).astype(int) - (200, 30, 40)).max() < 8
    assert len(loaded.thumbnail) < 5000 and "thumbnail" in describe(loaded)["parts"]
    assert loaded.digest() == make_identity().to(torch.float16).digest()


def bomb() -> bytes:
    file = io.BytesIO()
    Image.new("L", (2000, 2000)).save(file, "JPEG", quality=1)
    return file.getvalue()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data:image/png;base64,AAAA", "a thumbnail of at most 200000 characters, data:image/jpeg;base64,…"),
        ("data:image/jpeg;base64,AAAA", "a thumbnail that is a JPEG"),
        ("data:image/jpeg;base64,ü", "a thumbnail that is a JPEG"),
        ("data:image/jpeg;base64," + "A" * 300_000, "at most 200000 characters"),
        (lambda: "data:image/jpeg;base64," + base64.b64encode(bomb()).decode(), "2000 × 2000 pixels"),
    ],
)
def test_a_thumbnail_that_is_none_is_left_out(tmp_path, caplog, text, message):
    text = text() if callable(text) else text
    path = make_identity().save(tmp_path / "a.safetensors")
    tensors, metadata = read_tensors(path, lambda _: None)
    write_tensors(path, tensors, {**metadata, "modelspec.thumbnail": text})
    assert Identity.load(path).thumbnail == "" and message in caplog.text
    with pytest.raises(IdentityFileError, match=re.escape(message)):
        make_identity(thumbnail=text)
