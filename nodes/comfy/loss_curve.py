"""The loss curve as an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

SIZE, BORDER, FONT_SIZE = (640, 360), 56, 15
PAPER, GRID, POINTS, LINE, INK = (24, 26, 30), (52, 56, 64), (96, 120, 160), (255, 176, 32), (200, 204, 212)
SMOOTHING = 0.9  # weight of the past in the running mean


def draw_losses(losses: Sequence[float], size: tuple[int, int] = SIZE) -> Tensor:
    """IMAGE (1, H, W, 3): each step's loss as a point, their running mean as a line.

    Args:
        size: width and height in pixels.
    """
    image = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(image)
    low, high = min(losses), max(losses)
    span = (high - low) or 1.0

    def place(step: int, loss: float) -> tuple[float, float]:
        x, y = step / max(1, len(losses) - 1), 1 - (loss - low) / span
        return BORDER + (size[0] - 2 * BORDER) * x, BORDER + (size[1] - 2 * BORDER) * y

    for part in range(5):
        loss = low + span * part / 4
        (left, y), (right, _) = place(0, loss), (size[0] - BORDER, 0)
        draw.line([left, y, right, y], fill=GRID)
        draw.text((8, y - FONT_SIZE / 2), f"{loss:.3f}", fill=INK, font_size=FONT_SIZE)
    caption = f"loss of {len(losses)} steps; running mean in the end {smooth(losses)[-1]:.4f}"
    draw.text((BORDER, size[1] - BORDER + 16), caption, fill=INK, font_size=FONT_SIZE)
    for step, loss in enumerate(losses):
        x, y = place(step, loss)
        draw.ellipse([x - 3, y - 3, x + 3, y + 3], fill=POINTS)
    draw.line([place(step, loss) for step, loss in enumerate(smooth(losses))], fill=LINE, width=3)
    return torch.from_numpy(np.asarray(image)[None].astype(np.float32) / 255)


def smooth(losses: Sequence[float]) -> list[float]:
    """Running mean with bias correction, as in Adam."""
    means, mean, weight = [], 0.0, 0.0
    for loss in losses:
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        weight = SMOOTHING * weight + (1 - SMOOTHING)
        means.append(mean / weight)
    return means
