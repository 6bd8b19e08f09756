"""Faces drawn from signed distances, whole batches at once."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .people import PARAMETERS
from .scenes import Scenes

SIZE = 64  # pixels
SIDES = (-1, 1)

BACKGROUND_COLORS = torch.tensor(
    [
        [0.85, 0.2, 0.2],
        [0.25, 0.7, 0.3],
        [0.25, 0.4, 0.85],
        [0.95, 0.85, 0.3],
        [0.6, 0.3, 0.75],
        [0.55, 0.55, 0.55],
        [0.95, 0.95, 0.95],
        [0.95, 0.55, 0.15],
    ]
)
HAT_COLORS = torch.tensor([[0.0, 0.0, 0.0], [0.95, 0.05, 0.1], [0.05, 0.15, 0.95], [0.05, 0.6, 0.1]])
SKIN = torch.tensor([[1.0, 0.88, 0.78], [0.96, 0.78, 0.62], [0.82, 0.6, 0.42], [0.6, 0.4, 0.26], [0.38, 0.24, 0.16]])
HAIR = torch.tensor(
    [
        [0.06, 0.05, 0.05],
        [0.25, 0.14, 0.08],
        [0.45, 0.27, 0.13],
        [0.75, 0.32, 0.1],
        [0.93, 0.8, 0.42],
        [0.78, 0.78, 0.8],
    ]
)
EYES = torch.tensor([[0.2, 0.1, 0.05], [0.15, 0.45, 0.15], [0.15, 0.4, 0.9]])
LIPS = torch.tensor([[0.55, 0.25, 0.22], [0.75, 0.12, 0.15], [0.85, 0.3, 0.45]])
WHITE, BLACK, SHIRT = (torch.tensor([color]) for color in ([1.0] * 3, [0.08] * 3, [0.3, 0.32, 0.4]))
SMILE = torch.tensor([0.0, 1.0, -1.0])  # by expression
GRAY = torch.tensor([0.299, 0.587, 0.114])


def render(faces: Tensor, scenes: Scenes, generator: torch.Generator | None = None, size: int = SIZE) -> Tensor:
    """Images (B, 3, size, size) in 0…1.

    Args:
        faces: (B, K) identity parameters, standard normal.
        generator: of the sensor's noise; None: no noise.
    """
    picture, _ = render_with_keypoints(faces, scenes, generator, size)
    return picture


def render_with_keypoints(
    faces: Tensor, scenes: Scenes, generator: torch.Generator | None = None, size: int = SIZE
) -> tuple[Tensor, Tensor]:
    """Images, and (B, 5, 2) x, y in pixels of eyes, nose and corners of the mouth, the image's left first."""
    canvas = _Canvas(scenes, size)
    keypoints = _draw(canvas, _Face(faces), scenes)
    picture = _style(canvas.picture, scenes.style)
    light = scenes.light.view(-1, 1, 1) + scenes.side_light.view(-1, 1, 1) * canvas.plain_x
    picture = picture * light[:, None]
    if generator is not None:
        picture = picture + torch.randn(picture.shape, generator=generator) * scenes.noise.view(-1, 1, 1, 1)
    return picture.clamp_(0, 1), canvas.to_pixels(keypoints)


class _Face:
    """Identity parameters as fractions in 0…1, by name."""

    def __init__(self, faces: Tensor):
        self._fractions = 0.5 * (1 + torch.erf(faces / math.sqrt(2)))

    def fraction(self, name: str) -> Tensor:
        """(B, 1, 1)."""
        return self._fractions[:, PARAMETERS.index(name)].view(-1, 1, 1)

    def between(self, name: str, low: float, high: float) -> Tensor:
        """(B, 1, 1)."""
        return low + (high - low) * self.fraction(name)

    def color(self, name: str, palette: Tensor) -> Tensor:
        """(B, 3), between neighbours of the palette."""
        place = self.fraction(name).view(-1) * (len(palette) - 1)
        lower = place.floor().long().clamp(max=len(palette) - 2)
        part = (place - lower)[:, None]
        return palette[lower] * (1 - part) + palette[lower + 1] * part


class _Canvas:
    """An image with the face's own coordinates: −1…1, y downwards."""

    def __init__(self, scenes: Scenes, size: int):
        self._scenes, self._size = scenes, size
        axis = (torch.arange(size) + 0.5) / size * 2 - 1
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        self.plain_x = x[None]
        shift, scale = scenes.shift[:, :, None, None], scenes.scale.view(-1, 1, 1)
        cos, sin = torch.cos(scenes.turn).view(-1, 1, 1), torch.sin(scenes.turn).view(-1, 1, 1)
        x, y = (x - shift[:, 0]) / scale, (y - shift[:, 1]) / scale
        self.x, self.y = cos * x + sin * y, cos * y - sin * x
        self._sharpness = size / 2 * 1.2
        background = BACKGROUND_COLORS[scenes.background][:, :, None, None]
        self.picture = background.expand(-1, 3, size, size).clone()

    def paint(self, distance: Tensor, color: Tensor, opacity: Tensor | float = 1.0) -> None:
        """Colour (B or 1, 3) where the signed distance (B, S, S) is negative, smooth at the edge."""
        mask = (0.5 - distance * self._sharpness).clamp_(0, 1)
        if not isinstance(opacity, float):
            mask = mask * opacity
        self.picture.lerp_(color[:, :, None, None], mask[:, None])

    def ellipse(self, center_x: Tensor | float, center_y: Tensor | float, radius_x: Tensor, radius_y: Tensor) -> Tensor:
        across, down = (self.x - center_x) / radius_x, (self.y - center_y) / radius_y
        return ((across.square() + down.square() + 1e-6).sqrt() - 1) * torch.minimum(radius_x, radius_y)

    def to_pixels(self, points: Tensor) -> Tensor:
        """Points (B, P, 2) in the face's coordinates → in the image's pixels."""
        scenes = self._scenes
        cos, sin = torch.cos(scenes.turn)[:, None], torch.sin(scenes.turn)[:, None]
        x, y = points.unbind(-1)
        turned = torch.stack([cos * x - sin * y, sin * x + cos * y], dim=-1)
        placed = turned * scenes.scale[:, None, None] + scenes.shift[:, None]
        return (placed + 1) / 2 * self._size


def _draw(canvas: _Canvas, face: _Face, scenes: Scenes) -> Tensor:
    """The person, from back to front; key points (B, 5, 2) in the face's coordinates."""
    x, y, ellipse, paint = canvas.x, canvas.y, canvas.ellipse, canvas.paint
    skin, hair = face.color("skin", SKIN), face.color("hair_color", HAIR)
    width, height, middle = face.between("face_width", 0.42, 0.62), face.between("face_height", 0.54, 0.72), 0.12
    bottom, volume = face.between("hair_length", -0.15, 0.95), face.between("hair_volume", 0.06, 0.24)
    back = torch.maximum(ellipse(0.0, middle - 0.05, width + volume, height + volume * 0.9), y - bottom)
    sides = torch.maximum(x.abs() - (width + volume * 0.8), torch.maximum(y - bottom, -y))
    paint(torch.minimum(back, sides), hair)
    paint(ellipse(0.0, 1.25, width + 0.35, torch.full_like(width, 0.45)), SHIRT)
    paint(torch.maximum(x.abs() - 0.19, (y - 0.75).abs() - 0.3), skin * 0.88)
    head = ellipse(0.0, middle, width, height)
    paint(head, skin)
    _beard(canvas, face, head, middle + height, hair)
    fringe = face.between("fringe", 0.1, 0.4)
    paint(torch.maximum(head - 0.02, y - (middle - height + fringe + 0.25 * x * x)), hair)
    eyes = _eyes(canvas, face, width, middle - 0.06, hair)
    nose_width = face.between("nose_width", 0.04, 0.13)
    paint(ellipse(0.0, middle + 0.18, nose_width, 0.055 + nose_width * 0.5), skin * 0.72)
    mouth = _mouth(canvas, face, middle + 0.42, scenes.expression)
    _hat(canvas, width, middle - height, scenes.hat)
    nose = torch.stack([torch.zeros(len(scenes)), torch.full((len(scenes),), middle + 0.18)], dim=-1)
    return torch.stack([eyes[0], eyes[1], nose, mouth[0], mouth[1]], dim=1)


def _beard(canvas: _Canvas, face: _Face, head: Tensor, chin: Tensor, hair: Tensor) -> None:
    """The upper 40 % of people have one, of growing length."""
    amount = ((face.fraction("beard") - 0.6) / 0.4).clamp(0, 1)
    upper = chin - 0.3 - 0.25 * amount - 0.25 * canvas.x.square()
    canvas.paint(torch.maximum(head, upper - canvas.y), hair * 0.85, (amount > 0).float())


def _eyes(canvas: _Canvas, face: _Face, width: Tensor, height: float, hair: Tensor) -> list[Tensor]:
    """Eyes, brows, glasses; the eyes' places (B, 2)."""
    ellipse, paint, y = canvas.ellipse, canvas.paint, canvas.y
    spacing, radius = face.between("eye_spacing", 0.17, 0.32) * width / 0.52, face.between("eye_size", 0.07, 0.13)
    brow, iris = face.between("brow", 0.015, 0.05), face.color("eye_color", EYES)
    glasses = (face.fraction("glasses") > 0.68).float()
    rim = radius * 1.25 + 0.07
    for side in SIDES:
        x = canvas.x - side * spacing
        paint(ellipse(side * spacing, height, radius * 1.25, radius), WHITE)
        paint(ellipse(side * spacing, height, radius * 0.62, radius * 0.72), iris)
        paint(torch.maximum(x.abs() - radius * 1.4, (y - (height - radius - 0.1)).abs() - brow), hair * 0.5)
        paint(ellipse(side * spacing, height, rim, rim * 0.95).abs() - 0.025, BLACK, glasses)
    bridge = torch.maximum(canvas.x.abs() - (spacing - rim).clamp(min=0.01), (y - height).abs() - 0.025)
    paint(bridge, BLACK, glasses)
    return [torch.stack([side * spacing.view(-1), torch.full_like(spacing.view(-1), height)], -1) for side in SIDES]


def _mouth(canvas: _Canvas, face: _Face, height: float, expression: Tensor) -> list[Tensor]:
    """A curved line, up for a smile; the corners' places (B, 2)."""
    width, smile = face.between("mouth_width", 0.16, 0.32), SMILE[expression].view(-1, 1, 1)
    curve = height - smile * 0.14 * ((canvas.x / width).square() - 0.5)
    paint_at = torch.maximum(canvas.x.abs() - width, (canvas.y - curve).abs() - 0.042)
    canvas.paint(paint_at, face.color("lips", LIPS))
    corner_y = (height - smile * 0.07).view(-1)
    return [torch.stack([side * width.view(-1), corner_y], dim=-1) for side in SIDES]


def _hat(canvas: _Canvas, width: Tensor, top: Tensor, hat: Tensor) -> None:
    worn, color = (hat > 0).float().view(-1, 1, 1), HAT_COLORS[hat]
    crown = canvas.ellipse(0.0, top + 0.22, width + 0.1, torch.full_like(width, 0.48))
    canvas.paint(torch.maximum(crown, canvas.y - (top + 0.24)), color, worn)
    brim = torch.maximum(canvas.x.abs() - (width + 0.22), (canvas.y - (top + 0.24)).abs() - 0.06)
    canvas.paint(brim, color * 0.75, worn)


def _style(picture: Tensor, style: Tensor) -> Tensor:
    """A photo stays, a sketch is grey on paper, a painting has few, strong colours."""
    gray = torch.einsum("bchw,c->bhw", picture, GRAY)[:, None].expand_as(picture)
    saturated = gray + 1.5 * (picture - gray)
    painting = ((saturated * 4).round() / 4 - saturated) * 0.8 + saturated
    return _by_style(style, [lambda: picture, lambda: 0.25 + 0.75 * gray, lambda: painting.clamp(0, 1)])


def _by_style(style: Tensor, made: list[Callable[[], Tensor]]) -> Tensor:
    choices = style.view(-1, 1, 1, 1)
    result = made[0]()
    for number, make in enumerate(made[1:], start=1):
        result = torch.where(choices == number, make(), result)
    return result
