"""A picture of a person in a scene."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from . import shade
from .hair import Strands, grow, ribbons
from .head import head
from .person import Person, expressed, neutral
from .rasterise import axes_towards, point_normals, rasterise, rotation, shadow_map
from .scenes import BACKGROUNDS, COLORS, EXPRESSIONS, HATS, PATTERNS, SIZE, Scene
from .shell import Shell
from .skin import paint
from .template import template
from .wear import cap, glasses

SAMPLES = 2  # of a pixel's side
NECK = np.array([0.0, 6.3, 0.25])  # dm: what the head turns about
EYE_HEIGHT = 7.28  # dm: of the template's eyes
DISTANCE, FRAME = 11.0, 0.345  # dm from the camera; size of a usual head in it
NECKLINE = 0.725  # map v
SHADOW, REACH = 192, 4.4  # texels and dm of the shadow map's side
POWER, FILL = 1.5, 0.22  # of all light; the fill light's share of the key light
LINE = 0.4  # brightness of a pattern's second colour
COLORS_OF_PARTS = {
    shade.TEETH: (0.60, 0.55, 0.48),
    shade.TONGUE: (0.30, 0.10, 0.10),
    shade.LASH: (0.012, 0.010, 0.010),
    shade.FRAME: (0.02, 0.02, 0.022),
}
UNITS = {  # face units of the expressions; those of both sides at once
    "neutral": {},
    "smiling": {"mouthSmile": 0.85, "cheekSquint": 0.6, "eyeSquint": 0.25, "mouthDimple": 0.3, "mouthUpperUp": 0.35},
    "sad": {"mouthFrown": 1.0, "browInnerUp": 0.9, "mouthShrugLower": 0.5, "eyeSquint": 0.15},
    "surprised": {"jawOpen": 0.42, "browInnerUp": 0.9, "browOuterUp": 0.8, "eyeWide": 0.7},
}
ONE_SIDED = ("browInnerUp", "mouthShrugLower", "jawOpen")


@dataclass(frozen=True, eq=False)
class Portrait:
    """A person, made ready for pictures: points (V, 3) without expression, painted skin, grown hair."""

    person: Person
    points: np.ndarray
    texture: np.ndarray
    strands: Strands


def prepare(person: Person) -> Portrait:
    points = neutral(person)
    return Portrait(person, points, paint(person), grow(person, points))


def picture(portrait: Portrait, scene: Scene, size: int = SIZE, samples: int = SAMPLES) -> np.ndarray:
    """(size, size, 3) of bytes."""
    pose = _Pose(portrait, scene)
    mesh, casts = _mesh(portrait, scene, pose)
    full = size * samples
    ids, bary = np.full((full, full), -1, np.int32), np.zeros((full, full, 2))
    x, y, distance = _seen(mesh.points, pose, scene, full)
    rasterise(x, y, distance, mesh.faces, np.zeros((full, full)), ids, bary)
    lights = _lights(scene, pose, mesh, casts)
    looks = shade.Looks(
        _colors(portrait.person, scene), portrait.texture.astype(np.float64), portrait.person.eyes, pose.eyes,
        pose.split, pose.gaze, NECKLINE,
    )  # fmt: skip
    out = np.zeros((full, full, 3))
    shade.shade(ids, bary, mesh, looks, lights, out)
    out = np.where(ids[..., None] < 0, _wall(scene, full, lights), out)
    out = out.reshape(size, samples, size, samples, 3).mean((1, 3))
    final = shade.develop(out, scene.exposure)
    final += np.random.default_rng(scene.seed).normal(0, scene.grain, final.shape)
    return (final.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def keypoints(portrait: Portrait, scene: Scene, size: int = SIZE) -> np.ndarray:
    """(5, 2) x, y in pixels of left eye, right eye, nose, left and right corner of the mouth, as the image has them."""
    pose = _Pose(portrait, scene)
    nose, left, right = head().landmarks
    eyes = pose.eyes[np.argsort(pose.eyes[:, 0])]
    x, y, _ = _seen(np.concatenate([eyes, pose.points[[nose, left, right]]]), pose, scene, size)
    return np.stack([x, y], 1)


def _seen(points: np.ndarray, pose: _Pose, scene: Scene, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels x and y, and the distance in dm, of points (N, 3)."""
    distance = pose.camera[2] - points[:, 2]
    focal = size * FRAME * scene.zoom * DISTANCE * (2.2 / pose.tall) ** 0.7 / distance
    x = size * (0.5 + scene.shift[0]) + (points[:, 0] - pose.camera[0]) * focal
    y = size * (0.5 + scene.shift[1]) - (points[:, 1] - pose.camera[1]) * focal
    return x, y, distance


class _Pose:
    """A head turned and with its expression.

    Attributes:
        points: (V, 3); turn: (3, 3); pivot: (3,) what the head turns about.
        eyes: (2, 3) middles; gaze: (3,); split: (4,) plane between the eyes.
        camera: (3,); tall: the head's height in dm.
    """

    def __init__(self, portrait: Portrait, scene: Scene):
        t, rest = template(), portrait.points
        units = {
            unit + side: value * scene.strength
            for unit, value in UNITS[EXPRESSIONS[scene.expression]].items()
            for side in ([""] if unit in ONE_SIDED else ["Left", "Right"])
        }
        moved = expressed(rest, units)
        self.turn = rotation(scene.yaw, scene.pitch, scene.roll)
        both = [rest[numbers].mean(0) for numbers in t.eyes]
        middle = (both[0] + both[1]) / 2
        self.pivot = NECK + [0, middle[1] - EYE_HEIGHT, 0]
        # The head turns, the neck follows by part, the shoulders stay.
        self.points = moved + (self.turned(moved) - moved) * t.turn[:, None]
        self.eyes = np.stack([self.points[numbers].mean(0) for numbers in t.eyes])
        for numbers, center, old in zip(t.eyes, self.eyes, both):
            self.points[numbers] = rest[numbers] - old + center
        self.gaze = self.turn @ rotation(*scene.gaze, 0) @ [0, 0, 1.0]
        right = self.turn[:, 0]
        self.split = np.array([*right, right @ self.eyes.mean(0)])
        aim = middle + [0, -0.09, 0]
        self.aim = 0.7 * self.turned(aim) + 0.3 * aim
        self.camera = np.array([self.aim[0], self.aim[1], DISTANCE])
        skin = rest[t.turn > 0.99]
        self.tall = skin[:, 1].max() - skin[:, 1].min()

    def turned(self, points: np.ndarray) -> np.ndarray:
        return (points - self.pivot) @ self.turn.T + self.pivot


def _mesh(portrait: Portrait, scene: Scene, pose: _Pose) -> tuple[shade.Mesh, np.ndarray]:
    """All that is drawn, and which triangles (T,) cast shadows."""
    t, style = template(), portrait.person.style
    parts = [(pose.points, t.faces, t.kinds, t.attributes)]
    strands = portrait.strands
    if scene.hat:
        center = pose.turned(Shell(portrait.points).center)
        parts.append(cap(pose.points, center, pose.turn[:, 1], style))
        under = strands.paths[:, -1, 1] < portrait.points[t.eyes[0], 1].mean() + 0.45
        strands = Strands(strands.paths[under], strands.widths[under], strands.shades[under])
    if scene.glasses:
        parts.append(glasses(pose.eyes, pose.turn, _temples(portrait.points)))
    starts = np.cumsum([0] + [len(part[0]) for part in parts])
    points, kinds, attributes = (np.concatenate([part[k] for part in parts]) for k in (0, 2, 3))
    faces = np.concatenate([part[1] + start for part, start in zip(parts, starts)])
    normals = point_normals(points, faces)
    faces, kinds = np.concatenate([faces, t.lashes]), np.concatenate([kinds, np.full(len(t.lashes), shade.LASH)])
    if len(strands.paths):
        strands = replace(strands, paths=pose.turned(strands.paths))
        more, its_normals, its_attributes, its_faces = ribbons(strands, pose.camera)
        faces = np.concatenate([faces, its_faces + len(points)])
        kinds = np.concatenate([kinds, np.full(len(its_faces), shade.HAIR)])
        points, normals = np.concatenate([points, more]), np.concatenate([normals, its_normals])
        attributes = np.concatenate([attributes, its_attributes])
    casts = np.isin(kinds, (shade.SKIN, shade.HAIR, shade.HAT, shade.FRAME))
    return shade.Mesh(points, normals, attributes, faces, kinds), casts


def _temples(points: np.ndarray) -> float:
    """Half the width in dm of a head with points (V, 3), between eyes and ears."""
    rest, skin = head().points, np.unique(template().scalp)
    beside = skin[(np.abs(rest[skin, 1] - EYE_HEIGHT) < 0.12) & (np.abs(rest[skin, 2] - 0.75) < 0.2)]
    return float(np.abs(points[beside, 0]).max())


def _lights(scene: Scene, pose: _Pose, mesh: shade.Mesh, casts: np.ndarray) -> shade.Lights:
    side, above, hardness = scene.light
    key_from = np.array([side, above, 0.9])
    key_from /= np.linalg.norm(key_from)
    axes, center, texels = axes_towards(key_from), pose.aim - [0, 0, 0.4], SHADOW / REACH
    q = (mesh.points - center) @ axes.T
    nearest = np.full((SHADOW, SHADOW), 1e9)
    x, y = q[:, 0] * texels + SHADOW / 2, q[:, 1] * texels + SHADOW / 2
    shadow_map(x, y, -q[:, 2], mesh.faces[casts], nearest)
    tint = np.array([1 + scene.warmth, 1.0, 1 - scene.warmth])
    key = POWER * hardness * 1.7 * tint * [1.0, 0.97, 0.93]
    wall = np.array(COLORS[BACKGROUNDS[scene.background]])
    sky = POWER * (1 - hardness) * (0.78 * np.array([0.96, 1.0, 1.04]) + 0.12 * wall)
    fill_from = np.array([-np.sign(side) * 0.8, 0.1, 0.6])
    return shade.Lights(
        key_from, key, sky, sky * [0.66, 0.60, 0.56], fill_from / np.linalg.norm(fill_from), key * FILL, axes, nearest,
        texels, center, pose.camera,
    )  # fmt: skip


def _colors(person: Person, scene: Scene) -> np.ndarray:
    """(9, 3) by kind."""
    colors = np.zeros((9, 3))
    for kind, color in COLORS_OF_PARTS.items():
        colors[kind] = color
    colors[shade.SKIN], colors[shade.CLOTH], colors[shade.HAIR] = person.lips, scene.shirt, person.hair_color
    if scene.hat:
        colors[shade.HAT] = COLORS[HATS[scene.hat]]
    return colors


def _wall(scene: Scene, full: int, lights: shade.Lights) -> np.ndarray:
    """(full, full, 3): the wall behind the person, lit."""
    row, column = np.mgrid[0:full, 0:full] / full
    period = scene.phase[2]
    across, down = column / period + scene.phase[0], row / period + scene.phase[1]
    name = PATTERNS[scene.pattern]
    second = np.zeros((full, full), bool)
    if name == "striped":
        second = across % 1 < 0.5
    elif name == "checked":
        second = (across % 1 < 0.5) ^ (down % 1 < 0.5)
    elif name == "dotted":
        second = ((across % 1 - 0.5) ** 2 + ((down + 0.5 * (across // 1 % 2)) % 1 - 0.5) ** 2) < 0.28**2
    x, y = column - 0.5, row - 0.5
    fall = 1.0 + 0.25 * (x * scene.light[0] - y * scene.light[1]) - 0.4 * (x**2 + y**2)
    albedo = np.where(second[..., None], LINE, 1.0) * COLORS[BACKGROUNDS[scene.background]]
    return albedo * (lights.sky * 0.55 + lights.key * 0.35) * fall[..., None]
