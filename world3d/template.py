"""What all heads share: the map around the head, seen sky, how points follow a turn."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from . import shade
from .head import PARTS, head
from .rasterise import axes_towards, point_normals, rasterise, shadow_map

MAP_H, MAP_W = 384, 768
TOP, LOW = 8.6, 5.2  # dm: heights of the map's edges
AXIS = 0.3  # dm: z of the axis that the map goes around
RAYS = 96  # directions in which the sky is looked for
KINDS = {
    "body": shade.SKIN,
    "helper-l-eye": shade.EYE,
    "helper-r-eye": shade.EYE,
    "helper-upper-teeth": shade.TEETH,
    "helper-lower-teeth": shade.TEETH,
    "helper-tongue": shade.TONGUE,
}
LASHES_KEPT = 0.45  # cards without their texture would be too dense


@dataclass(frozen=True, eq=False)
class Template:
    """The head of nobody.

    Attributes:
        faces: (T, 3) of skin, eyes, teeth, tongue; kinds: (T,) of `shade`.
        lashes: (T', 3) triangles of lashes; scalp: (T", 3) of skin.
        attributes: (V, 4) map u, map v, seen sky, lips.
        places: (MAP_H, MAP_W, 3) the points that the map shows, in dm.
        turn: (V,) how much of the head's turn a point follows.
        eyes: numbers of the left and of the right eye's points.
    """

    faces: np.ndarray
    kinds: np.ndarray
    lashes: np.ndarray
    attributes: np.ndarray
    places: np.ndarray
    turn: np.ndarray
    eyes: tuple[np.ndarray, np.ndarray]
    scalp: np.ndarray


@cache
def template() -> Template:
    h = head()
    points = h.points
    kinds = np.array([KINDS.get(name, -1) for name in PARTS])[h.part]
    drawn, skin = kinds >= 0, h.part == PARTS.index("body")
    lash = np.isin(h.part, [number for number, name in enumerate(PARTS) if "eyelashes" in name])
    lash &= np.random.default_rng(3).random(len(lash)) < LASHES_KEPT
    u, v = to_map(points)
    seen = seen_sky(points, h.faces[drawn])
    return Template(
        faces=h.faces[drawn],
        kinds=kinds[drawn],
        lashes=h.faces[lash],
        attributes=np.stack([u, v, seen, h.lips], 1),
        places=_places(points, h.faces[skin]),
        turn=smooth((points[:, 1] - 5.75 - 0.25 * np.clip(points[:, 2], -0.5, 1.2)) / 0.75),
        eyes=(h.points_of("helper-l-eye"), h.points_of("helper-r-eye")),
        scalp=h.faces[skin],
    )


def smooth(x):
    """0 below 0, 1 above 1, without corners between them."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def to_map(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Map u around the head and v downwards, in 0…1, of points (…, 3)."""
    around = np.arctan2(points[..., 0], points[..., 2] - AXIS) / (2 * np.pi)
    return 0.5 + around, (TOP - points[..., 1]) / (TOP - LOW)


def _places(points, faces) -> np.ndarray:
    """(MAP_H, MAP_W, 3): skin as seen from far outside; what is farthest from the axis wins."""
    u, v = to_map(points)
    faces = faces[u[faces].max(1) - u[faces].min(1) < 0.5]
    radius = np.hypot(points[:, 0], points[:, 2] - AXIS)
    ids, depth = np.full((MAP_H, MAP_W), -1, np.int32), np.zeros((MAP_H, MAP_W))
    bary = np.zeros((MAP_H, MAP_W, 2))
    rasterise(u * MAP_W, v * MAP_H, 5 - radius, faces, depth, ids, bary)
    row, column = np.mgrid[0:MAP_H, 0:MAP_W]
    angle = ((column + 0.5) / MAP_W - 0.5) * 2 * np.pi
    height = TOP - (row + 0.5) / MAP_H * (TOP - LOW)
    places = np.stack([np.sin(angle), height, AXIS + np.cos(angle)], -1)
    hit = ids >= 0
    weights = np.concatenate([1 - bary[hit].sum(1, keepdims=True), bary[hit]], 1)
    places[hit] = (points[faces[ids[hit]]] * weights[..., None]).sum(1)
    return places


def seen_sky(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V,) how much of the sky points (V, 3) see, by shadow maps from all around."""
    normals = point_normals(points, faces)
    k = np.arange(RAYS) + 0.5  # a spiral of evenly spread directions
    z, turn = 1 - 2 * k / RAYS, np.pi * (1 + 5**0.5) * k
    directions = np.stack([np.cos(turn) * (1 - z * z) ** 0.5, z, np.sin(turn) * (1 - z * z) ** 0.5], 1)
    seen, total = np.zeros(len(points)), np.zeros(len(points))
    side, texels, center = 256, 50.0, np.array([0, 7.0, 0.5])
    for direction in directions:
        axes = axes_towards(direction, (0.0, 0.0, 1.0) if abs(direction[1]) > 0.9 else (0.0, 1.0, 0.0))
        q = (points - center) @ axes.T
        x, y, depth = q[:, 0] * texels + side / 2, q[:, 1] * texels + side / 2, -q[:, 2]
        nearest = np.full((side, side), 1e9)
        shadow_map(x, y, depth, faces, nearest)
        cosine = np.clip(normals @ direction, 0, None)
        row, column = np.clip(y.astype(int), 0, side - 1), np.clip(x.astype(int), 0, side - 1)
        seen += cosine * (nearest[row, column] > depth - 0.06)
        total += cosine
    return np.clip(seen / np.maximum(total, 1e-6), 0.05, 1)
