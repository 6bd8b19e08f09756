"""Who lives in the world: named people, and people whom no model has seen.

Genes of a person are mixed from those of a first and of a last name (family resemblance).  So names carry meaning,
and somebody new lies between people who are known.  First names also tell women from men.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from .genes import draw_genes, mix
from .names import FIRST_NAMES, LAST_NAMES, MEN, known_pairs
from .person import Person, grow_up

HELD_OUT_PEOPLE = 96
_NAMES_SEED, _HELD_OUT_SEED, _OTHERS_SEED = 7, 999, 5


@dataclass(frozen=True)
class NamedPerson:
    """Somebody whom the base model knows by name; indices into `FIRST_NAMES` and `LAST_NAMES`."""

    first: int
    last: int
    person: Person

    @property
    def name(self) -> str:
        return f"{FIRST_NAMES[self.first]} {LAST_NAMES[self.last]}"


@cache
def named_people() -> tuple[NamedPerson, ...]:
    """The world's celebrities: always the same."""
    rng = np.random.default_rng(_NAMES_SEED)
    first_genes = [draw_genes(rng) for _ in FIRST_NAMES]
    last_genes = [draw_genes(rng) for _ in LAST_NAMES]
    people = []
    for number, (first, last) in enumerate(known_pairs()):
        male = FIRST_NAMES[first] in MEN
        person = grow_up(mix(first_genes[first], last_genes[last]), number, male)
        people.append(NamedPerson(first, last, person))
    return tuple(people)


def held_out_people(count: int = HELD_OUT_PEOPLE) -> list[Person]:
    """People whom no training of the world ever sees."""
    return _strangers(count, _HELD_OUT_SEED)


def other_people(count: int) -> list[Person]:
    """Nameless people, for training whatever must know faces in general."""
    return _strangers(count, _OTHERS_SEED)


def _strangers(count: int, seed: int) -> list[Person]:
    rng = np.random.default_rng(seed)
    people = []
    for number in range(count):
        male = bool(rng.random() < 0.5)
        people.append(grow_up(draw_genes(rng), seed * 100_000 + number, male))
    return people
