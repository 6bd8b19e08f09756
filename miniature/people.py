"""The people of the world: parameters of faces, names of two tokens, and people whom no model has seen.

A person's face is the mean of a first name's face and a last name's (family resemblance), so that names carry
meaning and a new person lies between known ones, as with the names that a large model knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

PARAMETERS = (
    "skin",
    "hair_color",
    "hair_length",
    "hair_volume",
    "fringe",
    "eye_color",
    "eye_size",
    "eye_spacing",
    "nose_width",
    "mouth_width",
    "face_width",
    "face_height",
    "glasses",
    "beard",
    "brow",
    "lips",
)
FIRST_NAMES = LAST_NAMES = 120
NAMED_PEOPLE = 720
_NAMES_SEED, _PEOPLE_SEED, _HELD_OUT_SEED, _OTHERS_SEED = 7, 8, 999, 5
_ONSETS = [
    "b",
    "d",
    "f",
    "g",
    "h",
    "j",
    "k",
    "l",
    "m",
    "n",
    "p",
    "r",
    "s",
    "t",
    "v",
    "z",
    "br",
    "dr",
    "gr",
    "kr",
    "tr",
    "st",
]
_VOWELS = ["a", "e", "i", "o", "u"]
_FIRST_ENDS, _LAST_ENDS = ("la", "ny", "ro", "mi"), ("ster", "man", "ford", "well")


@dataclass(frozen=True, eq=False)
class NamedPeople:
    """The people whom the base model knows by name.

    Attributes:
        first, last: (N,) indices of names.
        faces: (N, K) parameters, of unit variance.
    """

    first: Tensor
    last: Tensor
    faces: Tensor

    def names(self) -> list[str]:
        """ "Bala Bastman" …, first name and last name."""
        first, last = first_names(), last_names()
        return [f"{first[f]} {last[n]}" for f, n in zip(self.first.tolist(), self.last.tolist())]


@cache
def named_people() -> NamedPeople:
    """The world's celebrities: always the same."""
    generator = torch.Generator().manual_seed(_NAMES_SEED)
    first_faces = torch.randn(FIRST_NAMES, len(PARAMETERS), generator=generator)
    last_faces = torch.randn(LAST_NAMES, len(PARAMETERS), generator=generator)
    pairs = torch.randperm(FIRST_NAMES * LAST_NAMES, generator=torch.Generator().manual_seed(_PEOPLE_SEED))
    first, last = pairs[:NAMED_PEOPLE] // LAST_NAMES, pairs[:NAMED_PEOPLE] % LAST_NAMES
    return NamedPeople(first, last, (first_faces[first] + last_faces[last]) * 0.5**0.5)


def held_out_people(count: int, seed: int = _HELD_OUT_SEED) -> Tensor:
    """Faces (count, K) of test people, whom no training of the world uses."""
    return torch.randn(count, len(PARAMETERS), generator=torch.Generator().manual_seed(seed))


def other_people(count: int, seed: int = _OTHERS_SEED) -> Tensor:
    """Faces (count, K) of nameless people, for training face models."""
    return torch.randn(count, len(PARAMETERS), generator=torch.Generator().manual_seed(seed))


@cache
def first_names() -> tuple[str, ...]:
    return _words(FIRST_NAMES, _FIRST_ENDS)


@cache
def last_names() -> tuple[str, ...]:
    return _words(LAST_NAMES, _LAST_ENDS)


def _words(count: int, ends: tuple[str, ...]) -> tuple[str, ...]:
    """Pronounceable words, all different: onset, vowel, ending."""
    words = [onset + vowel + end for end in ends for vowel in _VOWELS for onset in _ONSETS]
    step = 37  # no divisor of their number: neighbours in the list should not look alike
    return tuple(words[(number * step) % len(words)].capitalize() for number in range(count))
