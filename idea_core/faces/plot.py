"""A plot of the similarity of images to a person."""

from __future__ import annotations

import textwrap

import numpy as np
from PIL import Image, ImageDraw

from .likeness import Likeness, described

SIZE, BORDER, FONT_SIZE = (640, 360), 56, 15
NUMBER_WIDTH = 20  # pixels: images that are nearer to each other have no numbers
PAPER, GRID, INK = (24, 26, 30), (52, 56, 64), (200, 200, 200)
POINT, SAME, OTHER = (255, 176, 32), (64, 220, 96), (255, 96, 96)


def draw_likeness(likeness: Likeness) -> np.ndarray:
    """A plot (H, W, 3) uint8: the images' cosines, highest first, each above its number.

    Lines stand at 0 % and 100 % if there is a scale.
    """
    image = Image.new("RGB", SIZE, PAPER)
    draw = ImageDraw.Draw(image)
    ends = likeness.scale.ends or ()
    marks = [*likeness.detected, 0.0, *ends]
    low, high = min(marks) - 0.05, max(marks) + 0.05
    left, right = BORDER, SIZE[0] - BORDER

    def height(cosine: float) -> float:
        return SIZE[1] - BORDER - (SIZE[1] - 2 * BORDER) * (cosine - low) / (high - low)

    for cosine in np.linspace(low, high, 5):
        draw.line([left, height(cosine), right, height(cosine)], fill=GRID)
        draw.text((8, height(cosine) - FONT_SIZE / 2), f"{cosine:.2f}", fill=INK, font_size=FONT_SIZE)
    for cosine, color, label in zip(ends, (OTHER, SAME), ("0 %", "100 %")):
        draw.line([left, height(cosine), right, height(cosine)], fill=color, width=2)
        draw.text((right + 6, height(cosine) - FONT_SIZE / 2), label, fill=color, font_size=FONT_SIZE)
    problem = likeness.scale.problem
    for row, text in enumerate(textwrap.wrap(f"no percent: {problem}", 88) if problem else ()):
        draw.text((8, 6 + row * (FONT_SIZE + 3)), text, fill=INK, font_size=FONT_SIZE)
    step = (right - left) / len(likeness.cosines)
    for place, index in enumerate(likeness.order):
        x = left + (place + 0.5) * step
        if step > NUMBER_WIDTH:
            draw.text((x, SIZE[1] - BORDER + 8), str(index), fill=INK, font_size=FONT_SIZE - 3, anchor="mm")
        if (similarity := likeness.cosines[index]) is not None:
            y = height(similarity)
            draw.ellipse([x - 4, y - 4, x + 4, y + 4], fill=POINT)
    caption = f"mean {described(likeness.mean, likeness.scale)}; a face in {100 * likeness.detection_rate:.0f} %"
    draw.text((BORDER, SIZE[1] - BORDER + 20), caption, fill=INK, font_size=FONT_SIZE)
    return np.asarray(image)
