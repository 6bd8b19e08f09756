"""The head as a shell: how far it reaches from its middle, in all directions."""

from __future__ import annotations

import cv2
import numpy as np

from .template import template

POLAR, AROUND = 24, 48  # directions from the pole, and around
LOWEST = -1.3  # dm below the middle: skin farther down is no head


class Shell:
    """Radii (POLAR, AROUND) in dm around the middle (3,) of a head with points (V, 3)."""

    def __init__(self, points: np.ndarray):
        skin = points[np.unique(template().scalp)]
        self.center = np.array([0, skin[:, 1].max() - 1.05, 0.35])
        away = skin - self.center
        away = away[away[:, 1] > LOWEST]
        radius, i, j = self._cells(away)
        grid = np.zeros((POLAR, AROUND))
        np.maximum.at(grid, ((i + 0.5).astype(int).clip(0, POLAR - 1), (j + 0.5).astype(int) % AROUND), radius)
        for _ in range(6):  # close gaps
            around = np.maximum.reduce([np.roll(grid, step, axis) for axis in (0, 1) for step in (-1, 1)])
            grid = np.where(grid > 0, grid, around * 0.99)
        edged = np.concatenate([grid[:, -8:], grid, grid[:, :8]], 1)
        self.radii = cv2.GaussianBlur(edged, (0, 0), 0.8)[:, 8:-8]

    def push_out(self, points: np.ndarray, margin: np.ndarray) -> np.ndarray:
        """Points (P, 3) that are at least a margin (P,) in dm outside of the shell."""
        away = points - self.center
        radius, i, j = self._cells(away)
        i0, j0 = np.floor(i).astype(int), np.floor(j).astype(int)
        a, b = i - i0, j - j0

        def at(row, column):
            return self.radii[row.clip(0, POLAR - 1), column % AROUND]

        upper = at(i0, j0) * (1 - b) + at(i0, j0 + 1) * b
        lower = at(i0 + 1, j0) * (1 - b) + at(i0 + 1, j0 + 1) * b
        need = (upper * (1 - a) + lower * a) * (away[:, 1] > LOWEST + 0.05) + margin
        return self.center + away * np.maximum(need / radius, 1)[:, None]

    @staticmethod
    def _cells(away: np.ndarray):
        """Radius, and places between the rows and columns of `radii`, of displacements (P, 3)."""
        radius = np.linalg.norm(away, axis=-1) + 1e-9
        polar = np.arccos((away[:, 1] / radius).clip(-1, 1))
        around = np.arctan2(away[:, 0], away[:, 2])
        return radius, (polar / np.pi * POLAR - 0.5).clip(0, POLAR - 1e-3), (around / (2 * np.pi) + 0.5) * AROUND - 0.5
