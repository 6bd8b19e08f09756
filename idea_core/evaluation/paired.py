"""Differences of methods, paired over people, with intervals (Student's t)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

LEVEL = 0.95


class Estimate(NamedTuple):
    """A mean over people.

    Attributes:
        half: half of its 95 % interval; None for one person.
        p: of a t-test that the mean is 0; None for one person.
        people: their number.
    """

    mean: float
    half: float | None
    p: float | None
    people: int


def estimate(values: Sequence[float]) -> Estimate | None:
    """The mean of people's values; None without any."""
    from scipy import stats

    if not len(values):
        return None
    array, count = np.asarray(values, dtype=float), len(values)
    if count < 2:
        return Estimate(float(array.mean()), None, None, count)
    mean, error = float(array.mean()), float(array.std(ddof=1) / count**0.5)
    p = 2 * float(stats.t.sf(abs(mean) / error, count - 1)) if error else float(mean == 0)
    return Estimate(mean, error * float(stats.t.ppf((1 + LEVEL) / 2, count - 1)), p, count)


def difference(mine: Mapping[str, float], theirs: Mapping[str, float]) -> Estimate | None:
    """The mean of mine minus theirs, over the people whom both have; None without any."""
    return estimate([mine[person] - theirs[person] for person in sorted(mine.keys() & theirs.keys())])


def per_person(people: Sequence[str], values: Sequence[float | None]) -> dict[str, float]:
    """The mean of each person's values, those that are known."""
    found: dict[str, list[float]] = {}
    for person, value in zip(people, values):
        if value is not None:
            found.setdefault(person, []).append(value)
    return {person: float(np.mean(known)) for person, known in found.items()}
