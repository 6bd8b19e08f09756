"""ArcFace's alignment of faces by five key points, on whole batches (as insightface's `norm_crop` does one)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from idea_core.faces import face
from idea_core.faces.face import TEMPLATE_SIDE

CROP = TEMPLATE_SIDE  # pixels
TEMPLATE = torch.from_numpy(face.TEMPLATE)
"""Where the key points stand in a crop, x and y in pixels (arXiv 1801.07698)."""


def align(pictures: Tensor, keypoints: Tensor, size: int = CROP) -> Tensor:
    """Crops (B, 3, size, size), black where they leave the picture.

    Args:
        pictures: (B, 3, H, W).
        keypoints: (B, 5, 2) x, y in pixels.
        size: side of the crops; the template is scaled to it.
    """
    template = TEMPLATE * (size / CROP)
    target_mean, source_mean = template.mean(0), keypoints.mean(1)
    target, source = template - target_mean, keypoints - source_mean[:, None]
    # The similarity transform picture → crop with the least squared error at the key points, as a complex factor …
    power = source.square().sum((1, 2))
    real = (source * target).sum((1, 2)) / power
    imaginary = (source[..., 0] * target[:, 1] - source[..., 1] * target[:, 0]).sum(1) / power
    # … and its inverse, since each pixel of the crop asks where it comes from.
    size_squared = real.square() + imaginary.square()
    real, imaginary = real / size_squared, -imaginary / size_squared
    axis = torch.arange(size, dtype=torch.float32)
    y, x = torch.meshgrid(axis - target_mean[1], axis - target_mean[0], indexing="ij")
    real, imaginary = real.view(-1, 1, 1), imaginary.view(-1, 1, 1)
    across = real * x - imaginary * y + source_mean[:, 0].view(-1, 1, 1)
    down = imaginary * x + real * y + source_mean[:, 1].view(-1, 1, 1)
    height, width = pictures.shape[-2:]
    grid = torch.stack([(2 * across + 1) / width - 1, (2 * down + 1) / height - 1], dim=-1)
    return grid_sample(pictures, grid, align_corners=False)
