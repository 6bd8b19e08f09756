"""Genes: the numbers of unit variance that all of a person's traits are read from.

Genes of two names can be mixed, and the mixture is a likely person again.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import erf

import numpy as np

COUNT = 320  # K: those that no trait reads are spare


class Genes:
    """Reads genes (K,) in order, as the random numbers that traits are made of.

    Raises:
        ValueError: more genes are read than there are.
    """

    def __init__(self, values: np.ndarray):
        if values.shape != (COUNT,):
            raise ValueError(f"expected genes of shape ({COUNT},), got {values.shape}; draw them with `draw_genes`")
        self._values, self._read = values, 0

    def normals(self, count: int, spread: float = 1.0) -> np.ndarray:
        """(count,) of the normal distribution around 0."""
        begin, self._read = self._read, self._read + count
        if self._read > COUNT:
            raise ValueError(f"expected to read at most {COUNT} genes, got {self._read}; raise genes.COUNT")
        return self._values[begin : self._read] * spread

    def normal(self, middle: float = 0.0, spread: float = 1.0) -> float:
        return middle + float(self.normals(1, spread)[0])

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        share = 0.5 * (1 + erf(float(self.normals(1)[0]) / 2**0.5))
        return low + (high - low) * share

    def choice(self, odds: Mapping[str, float]) -> str:
        """One of the keys, as likely as their odds are high."""
        shares = np.cumsum(list(odds.values())) / sum(odds.values())
        return list(odds)[min(int(np.searchsorted(shares, self.uniform())), len(odds) - 1)]


def draw_genes(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal(COUNT)


def mix(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Genes (K,) between those of two names, of unit variance again."""
    return (first + second) * 0.5**0.5
