"""Where files go: never over another person's."""

from dataclasses import replace
from math import cos, sin
from pathlib import Path

import pytest
import torch
from helpers import make_identity

from idea_core import Identity
from idea_core.identity.place import free_place, same_person


def facing(angle: float, **changes) -> Identity:
    """A person whose face embedding has that angle, in radians, to a fixed one."""
    embedding = torch.zeros(512)
    embedding[:2] = torch.tensor([cos(angle), sin(angle)])
    return replace(make_identity(), id_embeds=embedding, **changes)


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (facing(0.5), True),
        (facing(1.2), False),  # a cosine of .36
        (facing(0, name="Alice"), True),
        (facing(0, name="bob"), False),
        (replace(make_identity(), id_embeds=None), True),
        (replace(make_identity("sd2"), id_embeds=None), False),
    ],
    ids=["other photos", "another face", "capital letter", "another name", "no face", "another base model"],
)
def test_who_is_the_same_person(other, same):
    assert same_person(facing(0), other) is same_person(other, facing(0)) is same


def place_of(path: Path, identity: Identity) -> str:
    return free_place(path, identity, Identity.load, same_person).name


def test_a_file_of_another_person_stays(tmp_path):
    path = tmp_path / "alice.safetensors"
    assert place_of(path, facing(0)) == "alice.safetensors"
    facing(0).save(path)
    assert place_of(path, facing(0)) == "alice.safetensors"
    assert place_of(path, facing(1.5)) == "alice_2.safetensors"
    facing(3).save(tmp_path / "alice_2.safetensors")
    assert place_of(path, facing(1.5)) == "alice_3.safetensors"
    assert place_of(path, facing(3)) == "alice_2.safetensors"  # saved again, it finds its own file


def test_a_file_that_cannot_be_read_stays(tmp_path):
    path = tmp_path / "alice.safetensors"
    path.write_bytes(b"GIF89a")
    assert place_of(path, facing(0)) == "alice_2.safetensors"
