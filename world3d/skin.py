"""Skin, painted on the map around the head: tone, flush, freckles, furrows, brows, shaved and hidden hair."""

from __future__ import annotations

import cv2
import numpy as np

from .person import Person
from .template import AXIS, MAP_H, MAP_W, smooth, template

FLUSHED = (  # middle and size in dm, and how red
    ((0.52, 6.95, 1.15), (0.26, 0.22, 0.5), 0.16),
    ((-0.52, 6.95, 1.15), (0.26, 0.22, 0.5), 0.16),
    ((0, 6.93, 1.62), (0.16, 0.14, 0.3), 0.20),
    ((0, 6.35, 1.35), (0.22, 0.14, 0.4), 0.08),
    ((0.85, 7.1, 0.5), (0.2, 0.3, 0.35), 0.20),
    ((-0.85, 7.1, 0.5), (0.2, 0.3, 0.35), 0.20),
)
HAIRLINE = (  # angle around the head, height above which hair grows
    (0, 0.35, 0.62, 0.85, 1.05, 1.22, 1.38, 1.6, 1.9, 2.4, np.pi),
    (7.97, 7.98, 7.93, 7.72, 7.5, 7.12, 7.25, 7.48, 7.15, 6.62, 6.5),
)
RECEDES = (1, 1.2, 1.6, 1.0, 0.3, 0, 0, 0, 0, 0, 0)  # how much of a high hairline shows at these angles
BEARD_LINE = ((0, 0.25, 0.5, 0.8, 0.95), (6.98, 6.80, 6.72, 6.98, 7.2))  # |x|, height


class Canvas:
    """The map of one person, being painted.

    Attributes:
        color: (MAP_H, MAP_W, 3) linear light; hidden: (MAP_H, MAP_W) how much hair hides the skin.
    """

    def __init__(self, person: Person):
        self.person, self.rng = person, np.random.default_rng(person.seed + 17)
        self.places = template().places.astype(np.float32)
        self.x, self.y, self.z = (self.places[..., k] for k in range(3))
        self.angle = np.arctan2(self.x, self.z - AXIS)
        self.old = max(person.age - 1, 0)
        self.color = np.ones((MAP_H, MAP_W, 3)) * person.skin
        self.hidden = np.zeros((MAP_H, MAP_W))

    def noise(self, scale: float) -> np.ndarray:
        """(MAP_H, MAP_W) of unit variance, smooth over `scale` texels."""
        step = max(int(scale / 1.5), 1)
        coarse = self.rng.standard_normal((MAP_H // step + 4, MAP_W // step + 4)).astype(np.float32)
        coarse = cv2.GaussianBlur(coarse, (0, 0), max(scale / step, 0.3))
        size = (coarse.shape[1] * step, coarse.shape[0] * step)
        fine = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)[:MAP_H, :MAP_W]
        return fine / fine.std()

    def spot(self, center, size) -> np.ndarray:
        """A soft blob (MAP_H, MAP_W), 1 in its middle."""
        away = (self.places - np.asarray(center, np.float32)) / np.asarray(size, np.float32)
        return np.exp(-np.einsum("...k,...k->...", away, away))

    def darken(self, amount: np.ndarray, power=1.0) -> None:
        self.color *= (1 - amount)[..., None] ** np.asarray(power)

    def cover(self, amount: np.ndarray, color: np.ndarray) -> None:
        self.color += (color - self.color) * amount[..., None]


def paint(person: Person) -> np.ndarray:
    """(MAP_H, MAP_W, 6): albedo, roughness, bumps along the map."""
    canvas = Canvas(person)
    _tone(canvas)
    _freckles_and_moles(canvas)
    _scalp(canvas)
    if person.sex > 0.5:
        _shaved(canvas)
    _brows(canvas)
    bump_x, bump_y = _bumps(canvas)
    oily = canvas.spot((0, 7.2, 1.6), (0.22, 0.5, 0.6)) + canvas.spot((0, 7.75, 1.3), (0.5, 0.2, 0.6))
    rough = np.clip(0.55 - 0.08 * oily + 0.03 * canvas.noise(3) + 0.3 * canvas.hidden, 0.36, 0.9)
    layers = [canvas.color.clip(0.002, 0.95), np.stack([rough, bump_x, bump_y], -1)]
    return np.concatenate(layers, -1).astype(np.float32)


def hairline(angle: np.ndarray, person: Person) -> np.ndarray:
    """Height in dm above which hair grows, by the angle around the head."""
    heights = np.array(HAIRLINE[1]) + person.hairline * np.array(RECEDES)
    return np.interp(np.abs(angle), HAIRLINE[0], heights)


def _tone(c: Canvas) -> None:
    c.color *= (1 + 0.035 * c.noise(14) + 0.035 * c.noise(4) + 0.03 * c.noise(1.2))[..., None]
    red = sum(amount * c.person.flush * c.spot(center, size) for center, size, amount in FLUSHED)
    c.color *= np.stack([1 + 0.10 * red, 1 - 0.85 * red, 1 - 0.75 * red], -1)
    rings = 0.15 + 0.25 * c.old * c.rng.uniform(0.3, 1)
    for side in (-1, 1):
        c.darken(rings * c.spot((side * 0.30, 7.13, 1.35), (0.20, 0.075, 0.4)), (0.8, 1.1, 1.0))
        c.darken(0.14 * c.spot((side * 0.33, 7.36, 1.4), (0.22, 0.06, 0.4)))


def _freckles_and_moles(c: Canvas) -> None:
    dots = cv2.GaussianBlur((c.noise(0.9) > 1.9).astype(np.float32), (0, 0), 0.8)
    where = c.spot((0, 7.05, 1.4), (0.6, 0.25, 0.6))
    c.darken(np.clip(c.person.freckles * 1.6 * dots * where, 0, 0.65), (0.6, 1.0, 1.2))
    stains = np.clip(c.noise(3.0) - 1.7, 0, 0.8)
    c.darken(max(c.old - 0.4, 0) * 0.5 * stains, (0.7, 1.0, 1.2))
    for _ in range(c.rng.poisson(1.2)):
        size = 0.018 if c.rng.random() < 0.8 else 0.028
        center = (c.rng.uniform(-0.75, 0.75), c.rng.uniform(6.3, 7.9), 1.2)
        c.darken(0.65 * c.spot(center, (size, size, 2)))


def _scalp(c: Canvas) -> None:
    edge = hairline(c.angle, c.person) + 0.03 * c.noise(2.0)
    on_scalp = smooth((c.y - edge) / 0.14 + 0.2) * (np.abs(c.x) < 1.6) * (c.y > 6.4)
    ears = c.spot((0.93, 7.1, 0.35), (0.16, 0.3, 0.25)) + c.spot((-0.93, 7.1, 0.35), (0.16, 0.3, 0.25))
    on_scalp *= 1 - np.clip(2 * ears, 0, 1)
    share = {"bald": 0.06, "buzz": 0.80}.get(c.person.style, 0.92)
    c.hidden = share * on_scalp * (0.85 + 0.15 * c.noise(0.7)).clip(0, 1)
    bald = c.person.style == "bald"
    c.cover(c.hidden, c.person.hair_color if bald else 0.7 * c.person.hair_color + 0.06 * c.person.skin)


def _shaved(c: Canvas) -> None:
    """Where a beard grows: its shadow, or the skin under it."""
    jaw = smooth((6.98 - c.y) / 0.25) * smooth((c.y - 6.02) / 0.15) * smooth((np.cos(c.angle) + 0.05) / 0.3)
    jaw *= 1 - np.clip(1.6 * c.spot((0, 6.62, 1.5), (0.36, 0.085, 0.6)), 0, 1)
    zone = jaw * smooth((np.interp(np.abs(c.x), *BEARD_LINE) - c.y) / 0.12)
    upper, chin = c.spot((0, 6.77, 1.5), (0.34, 0.075, 0.7)), c.spot((0, 6.36, 1.4), (0.24, 0.2, 0.8))
    grain = (0.75 + 0.35 * c.noise(0.8)).clip(0, 1.3)
    shadow = 0.42 if c.person.beard == "stubble" else 0.10
    c.cover(shadow * zone * grain, 0.7 * c.person.hair_color)
    areas = {"moustache": upper, "goatee": np.maximum(upper, chin), "full": np.maximum(zone, 0.9 * upper)}
    if c.person.beard in areas:
        thick = smooth(areas[c.person.beard] * 2.2 - 0.3) * grain.clip(0, 1)
        c.cover(0.92 * thick, 0.9 * c.person.hair_color)


def _brows(c: Canvas) -> None:
    thick, dense, arch = c.person.brow
    s = (np.abs(c.x) - 0.10) / 0.44  # along the brow, from the nose
    inside = s.clip(0, 1)
    middle = 7.475 + 0.045 * np.sin(inside * np.pi * 0.85) * (1 + 0.5 * arch)
    middle -= 0.05 * smooth((s - 0.6) / 0.5) + 0.025 * (1 - s).clip(0, 1)
    half = 0.042 * thick * np.clip(1.15 - 0.75 * inside**2, 0.2, 2) * smooth(s / 0.12 + 0.4) + 1e-3
    brow = np.exp(-(((c.y - middle) / half) ** 2) * 1.2) * (s > -0.12) * smooth((1.06 - s) / 0.15) * (c.z > 0.6)
    pale = c.person.hair in ("white", "gray")
    color = c.person.hair_color * 0.5 if pale else np.minimum(c.person.hair_color * 0.6, 0.12)
    c.cover(np.clip(brow * dense * (1.05 + 0.35 * c.noise(0.7)), 0, 0.93), color)


def _bumps(c: Canvas) -> tuple[np.ndarray, np.ndarray]:
    """Slopes (MAP_H, MAP_W) of pores and of the furrows of age, to the right and up."""
    across = np.abs(c.x)
    height = 0.05 * c.noise(0.8) + 0.05 * c.noise(2)
    lines = np.sin(c.y * 62 + 1.3 * c.noise(22) + 0.5 * np.cos(c.x * 5))
    lines *= smooth((c.y - 7.6) / 0.1) * smooth((8.0 - c.y) / 0.15) * smooth((0.55 - across) / 0.2)
    rays = np.sin((c.y - 7.26) * 70 / (0.6 + 3 * np.clip(across - 0.5, 0, 1)) + c.noise(15))
    rays *= sum(c.spot((side * 0.62, 7.26, 1.0), (0.12, 0.12, 0.3)) for side in (-1, 1))
    height = height + c.old * (0.45 * lines * c.rng.uniform(0.2, 1) + 0.4 * rays * c.rng.uniform(0.3, 1))
    right, down = (cv2.Sobel(height.astype(np.float32), cv2.CV_32F, *way) * 0.09 for way in ((1, 0), (0, 1)))
    return right, -down
