"""What people wear on their heads: a knitted cap, and glasses of thin tubes."""

from __future__ import annotations

import numpy as np

from . import shade
from .head import head
from .template import smooth, template

BARE = ("bald", "buzz")
RIM, BRIDGE = 0.013, 0.012  # dm: radii of tubes
Part = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # points, faces, kinds, attributes


def cap(points: np.ndarray, center: np.ndarray, up: np.ndarray, style: str) -> Part:
    """The scalp, larger: around a head with points (V, 3) and a middle (3,), whose crown is where `up` points."""
    triangles = template().scalp
    middle = head().points[triangles].mean(1)
    edge = 7.74 - 0.42 * smooth((0.9 - middle[:, 2]) / 1.2)
    used, faces = np.unique(triangles[(middle[:, 1] > edge) & (np.abs(middle[:, 0]) < 1.5)], return_inverse=True)
    away = points[used] - center
    thickness = 0.08 if style in BARE else 0.15
    shell = center + away * (1 + thickness / np.linalg.norm(away, axis=1, keepdims=True)) + up * 0.04
    return _part(shell, faces.reshape(-1, 3), shade.HAT, 0.9)


def glasses(eyes: np.ndarray, turn: np.ndarray, width: float) -> Part:
    """Frames before eyes with middles (2, 3), on a head turned by (3, 3) `width` half as wide at the temples."""
    half = np.linalg.norm(eyes[0] - eyes[1]) / 2
    angle = np.linspace(0, 2 * np.pi, 25)[:-1]
    cosine, sine = np.cos(angle), np.sin(angle)
    pieces = []
    for side in (-1, 1):
        x = side * half * 1.08 + 0.26 * np.sign(cosine) * np.abs(cosine) ** 0.8
        y = -0.03 + 0.20 * np.sign(sine) * np.abs(sine) ** 0.8
        z = 0.36 - 0.10 * cosine**2 * (side * cosine > 0)
        pieces.append(_tube(np.stack([x, y, z], 1), RIM, closed=True))
        hinge, beside = half * 1.08 + 0.26, max(width + 0.02, half * 1.08 + 0.22)
        temple = [[side * hinge, 0.03, 0.28], [side * beside, 0.04, -0.15], [side * beside, 0.0, -0.95]]
        pieces.append(_tube(np.array(temple), BRIDGE))
    inner = half * 1.08 - 0.25
    pieces.append(_tube(np.array([[-inner, 0.0, 0.36], [0, 0.05, 0.42], [inner, 0.0, 0.36]]), BRIDGE))
    starts = np.cumsum([0, *(len(points) for points, _ in pieces)])
    faces = np.concatenate([faces + start for (_, faces), start in zip(pieces, starts)])
    points = np.concatenate([points for points, _ in pieces]) @ turn.T + eyes.mean(0)
    return _part(points, faces, shade.FRAME, 1.0)


def _part(points, faces, kind: int, seen: float) -> Part:
    attributes = np.tile([0, 0, seen, 0], (len(points), 1)).astype(float)
    return points, faces, np.full(len(faces), kind), attributes


def _tube(path: np.ndarray, radius: float, sides: int = 6, closed: bool = False):
    """Points and faces of a tube along a path (P, 3)."""
    tangent = np.roll(path, -1, 0) - np.roll(path, 1, 0) if closed else np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True) + 1e-9
    a = np.cross(tangent, np.where(np.abs(tangent[:, 2:]) < 0.9, [[0, 0, 1.0]], [[0, 1.0, 0]]))
    a /= np.linalg.norm(a, axis=1, keepdims=True) + 1e-9
    b = np.cross(tangent, a)
    turn = np.arange(sides) / sides * 2 * np.pi
    ring = np.cos(turn)[None, :, None] * a[:, None] + np.sin(turn)[None, :, None] * b[:, None]
    count, k = len(path), np.arange(sides)
    i = np.arange(count if closed else count - 1)[:, None]
    this, following = i * sides, (i + 1) % count * sides
    p, q, s, u = this + k, this + (k + 1) % sides, following + k, following + (k + 1) % sides
    return (path[:, None] + radius * ring).reshape(-1, 3), np.stack([p, q, s, q, u, s], -1).reshape(-1, 3)
