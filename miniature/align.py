"""ArcFace's alignment of faces by five key points, on whole batches (as insightface's `norm_crop` does one)."""

from __future__ import annotations

import torch
from torch import Tensor

from idea_core.faces import face
from idea_core.faces.face import TEMPLATE_SIDE
from idea_core.faces.torch_recogniser import crop_faces

CROP = TEMPLATE_SIDE  # pixels
TEMPLATE = torch.from_numpy(face.TEMPLATE)
"""Positions of the key points in a crop, x and y in pixels (arXiv 1801.07698)."""


def align(pictures: Tensor, keypoints: Tensor) -> Tensor:
    """Crops (B, 3, CROP, CROP) of images (B, 3, H, W), by key points (B, 5, 2), x and y in pixels."""
    return crop_faces(pictures.movedim(1, -1), keypoints, CROP)
