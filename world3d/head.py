"""MakeHuman's head (CC0): a mesh and the targets that move it.

Points are in decimetres, y up, z towards the viewer; only what lies above the chest is kept.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np

CACHE = Path(__file__).parent / "data" / "head.npz"
PARTS = (
    "body",
    "helper-l-eye",
    "helper-r-eye",
    "helper-upper-teeth",
    "helper-lower-teeth",
    "helper-tongue",
    "helper-l-eyelashes-2",
    "helper-r-eyelashes-2",
)
RACES, SEXES, AGES = ("african", "asian", "caucasian"), ("female", "male"), ("child", "young", "old")


@dataclass(frozen=True, eq=False)
class Head:
    """The template of V points and T triangles, and the N targets that can move it.

    Attributes:
        points: (V, 3) in dm.
        faces: (T, 3) of points.
        part: (T,) index into `PARTS`.
        lips: (V,) how much of a point is lip, in 0…1.
        names: of the targets, "folder/target".
        deltas: (N, V, 3) in dm.
    """

    points: np.ndarray
    faces: np.ndarray
    part: np.ndarray
    lips: np.ndarray
    names: tuple[str, ...]
    deltas: np.ndarray

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Each target's number by its name."""
        return {name: number for number, name in enumerate(self.names)}

    @cached_property
    def landmarks(self) -> tuple[int, int, int]:
        """Points at the tip of the nose and at the corners of the mouth, at −x and at +x."""
        mouth = np.flatnonzero(self.lips > 0.5)
        between = (np.abs(self.points[:, 0]) < 0.05) & (self.points[:, 1] > self.points[mouth, 1].max())
        nose = np.flatnonzero(between)[self.points[between, 2].argmax()]
        left, right = mouth[self.points[mouth, 0].argmin()], mouth[self.points[mouth, 0].argmax()]
        return int(nose), int(left), int(right)

    def moved(self, weights: np.ndarray) -> np.ndarray:
        """How far weights (N,) of the targets move the points: (V, 3)."""
        used = np.flatnonzero(weights)
        return np.einsum("n,nvk->vk", weights[used], self.deltas[used])

    def points_of(self, part: str) -> np.ndarray:
        """Numbers of a part's points."""
        return np.unique(self.faces[self.part == PARTS.index(part)])


@cache
def head() -> Head:
    kept = np.load(CACHE)
    return Head(
        points=kept["points"].astype(np.float64),
        faces=kept["faces"].astype(np.int64),
        part=kept["part"].astype(np.int64),
        lips=kept["lips"].astype(np.float64),
        names=tuple(json.loads(str(kept["names"]))),
        deltas=kept["deltas"].astype(np.float32),
    )
