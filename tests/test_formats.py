"""Files of the format before are read under the present names; older and newer ones are refused with a remedy."""

import json
from pathlib import Path

import pytest
import safetensors
from helpers import make_identity, rewrite

from idea_core import Identity, TrainConfig
from idea_core.enhancers.config import EnhancerTrainConfig, RefineConfig
from idea_core.enhancers.pretrained import PretrainedEnhancer
from idea_core.errors import IdentityFileError
from idea_core.files.digest import Digest, digest_of, file_digest
from miniature.world import ENHANCER

NEW_SETTINGS = ("space", "kv_scope", "adapter_width")  # of format 3
OLD_PERSON = Path(__file__).parent / "data" / "identity_format_1.safetensors"
"""A person trained and saved by the code before format 2 (its metadata: `n`, `d`, `kv_rate` …)."""
FORMAT_2 = OLD_PERSON.with_stem("identity_format_2")
"""The same person, saved by the code before format 3 (an Adapter as wide as the text condition, no `kv_scope`)."""


def metadata_of(path: Path) -> dict[str, str]:
    with safetensors.safe_open(path, "pt") as file:
        return file.metadata()


def test_a_person_of_format_1_is_read_under_the_present_names(tmp_path):
    old = metadata_of(OLD_PERSON)
    assert old["format_version"] == "1" and (old["n"], old["d"]) == ("2", "128") and "kv_rate" in old["training"]
    person = Identity.load(OLD_PERSON)
    assert (person.name, person.base_model, person.num_tokens, person.has_adapter) == ("alice", "mini", 2, True)
    assert person.base_ref.base_checkpoint == "base" and person.thumbnail == old["modelspec.thumbnail"]
    expected = TrainConfig(steps=2, kv_rank=1).as_dict()
    for name in NEW_SETTINGS:
        expected.pop(name)
    assert expected.items() <= person.training.items()
    assert set(person.training) - set(expected) == {
        "fingerprint",
        "losses",
        "photos",
        "refine",
        "report",
        "sizes",
        "version",
    }
    refine = RefineConfig(sampling_steps=20, prompts=("a photo of {}",)).as_dict() | {"prompts": ["a photo of {}"]}
    refine.pop("order")  # newer than the file
    assert person.training["refine"] == refine
    assert person.training["report"] == {"likeness": [[0, 0.5], [1, 0.625]]}
    new = metadata_of(person.save(tmp_path / "new.safetensors"))
    assert (new["format_version"], new["num_tokens"], new["cross_attention_dim"]) == ("3", "2", "128")
    assert "n" not in new and "d" not in new and json.loads(new["training"]) == person.training
    again = Identity.load(tmp_path / "new.safetensors")
    assert again.digest() == person.digest() and again.metadata() == person.metadata()


def test_a_person_of_format_2_is_the_same_person(tmp_path):
    old = metadata_of(FORMAT_2)
    assert old["format_version"] == "2" and "kv_scope" not in old and "adapter_width" not in old
    person, first = Identity.load(FORMAT_2), Identity.load(OLD_PERSON)
    assert (person.kv_scope, person.rows, person.base_ref.adapter_width) == ("whole", None, None)
    assert person.base_ref.width == person.base.width == 128
    assert person.digest() == first.digest() and person.metadata() == first.metadata()
    new = metadata_of(person.save(tmp_path / "new.safetensors"))
    assert (new["format_version"], new["kv_scope"], new["adapter_width"]) == ("3", "whole", "")


def test_an_enhancer_of_format_2_is_read_under_the_present_names(tmp_path):
    assert metadata_of(ENHANCER)["format_version"] == "2"
    enhancer = PretrainedEnhancer.load(ENHANCER)
    record, settings = enhancer.training, set(EnhancerTrainConfig().as_dict())
    assert settings <= set(record) and not {"rate", "snr", "noisiest", "pictures"} & set(record)
    assert (record["lr"], record["text_lr"], record["likeness_lr"]) == (1e-4, 1e-3, 1e-4)
    assert (record["snr_gamma"], record["snr_scale"], record["num_images"]) == (2.0, 5.0, 50670)
    again = PretrainedEnhancer.load(enhancer.save(tmp_path / "new.safetensors"))
    assert metadata_of(tmp_path / "new.safetensors")["format_version"] == "4"
    assert again.digest() == enhancer.digest() and again.metadata() == enhancer.metadata()


@pytest.mark.parametrize(
    ("version", "remedy"),
    [
        ("0", "Choose another file that ID-EA saved, or train again."),
        ("4", "Update ID-EA: a newer version wrote this file."),
        ("9" * 5000, "a.safetensors"),
        ("one", "or train again."),
    ],
)
def test_another_version_is_refused_with_a_remedy(tmp_path, version, remedy):
    path = make_identity().save(tmp_path / "a.safetensors")
    rewrite(path, lambda tensors, metadata: metadata.update(format_version=version))
    with pytest.raises(IdentityFileError, match="got .* in a.safetensors") as refused:
        Identity.load(path)
    assert remedy in str(refused.value)


@pytest.mark.parametrize("training", ["5", "[]", '{"refine": 5}', "{", None])
def test_a_damaged_record_of_an_old_file_is_refused_or_kept(tmp_path, training):
    path = tmp_path / "a.safetensors"
    path.write_bytes(OLD_PERSON.read_bytes())
    rewrite(path, lambda _, metadata: metadata.update(training=training) if training else metadata.pop("training"))
    if training and "refine" in training:
        assert Identity.load(path).training == {"refine": 5}
        return
    with pytest.raises(IdentityFileError, match="a.safetensors"):
        Identity.load(path)


def test_digests_are_those_of_other_programs_and_do_not_depend_on_the_order_of_keys(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # NIST's example
    assert file_digest(path) == Digest().add_file(path).hex() == digest_of("abc") == abc
    path.write_bytes(b"abcd")
    assert file_digest(path) != abc
    assert Digest().add_json({"a": 1, "b": 2}).hex() == Digest().add_json({"b": 2, "a": 1}).hex()
    tensors = make_identity().tensors()
    backwards = dict(reversed(tensors.items()))
    assert Digest().add_tensors(tensors).hex() == Digest().add_tensors(backwards).hex() == make_identity().digest()
