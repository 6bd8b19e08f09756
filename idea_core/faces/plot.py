"""The likeness of pictures to a person, as a plot."""

from __future__ import annotations

import textwrap

import numpy as np
from PIL import Image, ImageDraw

from .likeness import Likeness, described

SIZE, BORDER, FONT_SIZE = (640, 360), 56, 15
PAPER, GRID, POINT, SAME, OTHER, INK = (
    (24, 26, 30),
    (52, 56, 64),
    (255, 176, 32),
    (64, 220, 96),
    (255, 96, 96),
    (200,) * 3,
)


def draw_likeness(likeness: Likeness) -> np.ndarray:
    """A plot (H, W, 3) uint8: each picture's cosine, best first, between the lines of 100 % and 0 % if they stand."""
    picture = Image.new("RGB", SIZE, PAPER)
    draw = ImageDraw.Draw(picture)
    scale = likeness.scale
    ends = {} if scale.problem else {"0 %": (scale.other, OTHER), "100 %": (scale.same, SAME)}
    marks = [*likeness.detected, 0.0, *(cosine for cosine, _ in ends.values())]
    low, high = min(marks) - 0.05, max(marks) + 0.05
    left, right = BORDER, SIZE[0] - BORDER

    def height(cosine: float) -> float:
        return SIZE[1] - BORDER - (SIZE[1] - 2 * BORDER) * (cosine - low) / (high - low)

    def line(cosine: float, color: tuple[int, int, int], label: str) -> None:
        draw.line([left, height(cosine), right, height(cosine)], fill=color, width=2)
        draw.text((right + 6, height(cosine) - FONT_SIZE / 2), label, fill=color, font_size=FONT_SIZE)

    for cosine in np.linspace(low, high, 5):
        draw.line([left, height(cosine), right, height(cosine)], fill=GRID)
        draw.text((8, height(cosine) - FONT_SIZE / 2), f"{cosine:.2f}", fill=INK, font_size=FONT_SIZE)
    for label, (cosine, color) in ends.items():
        line(cosine, color, label)
    for row, text in enumerate(textwrap.wrap(f"no percent: {scale.problem}", 88) if scale.problem else ()):
        draw.text((8, 6 + row * (FONT_SIZE + 3)), text, fill=INK, font_size=FONT_SIZE)
    step = (right - left) / len(likeness.cosines)
    for place, index in enumerate(likeness.order):
        if (cosine := likeness.cosines[index]) is not None:
            x, y = left + (place + 0.5) * step, height(cosine)
            draw.ellipse([x - 4, y - 4, x + 4, y + 4], fill=POINT)
    caption = f"mean {described(likeness.mean, likeness.scale)}; a face in {likeness.detection_rate:.0%}"
    draw.text((BORDER, SIZE[1] - BORDER + 16), caption, fill=INK, font_size=FONT_SIZE)
    return np.asarray(picture)
