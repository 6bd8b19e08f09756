"""ComfyUI's images and the core's pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from comfy_api.v0_0_2 import io
from torch import Tensor

from ...idea_core.faces.pictures import stack
from ..sockets import require


def first(value: Any) -> Any:
    """What one link brought to a node that takes lists."""
    return value[0] if isinstance(value, list) else value


def single_images(images: Tensor | Iterable[Tensor]) -> list[Tensor]:
    """Every image (H, W, C) of a batch, or of a list of batches of different sizes."""
    batches = images if isinstance(images, list) else [images]
    for batch in batches:
        require_images(batch)
    return [image for batch in batches for image in batch]


def require_images(images: Any) -> None:
    """Raise `SocketError` unless it is an IMAGE: what is no link, and nodes that found nothing, give other things."""
    require(images, Tensor, io.Image, "Load Image")


def to_uint8(image: Tensor) -> np.ndarray:
    """IMAGE (H, W, C) in 0…1 → (H, W, 3) uint8; alpha is left out, grey becomes RGB, what is no number is black."""
    rgb = image[..., :3] if image.shape[-1] >= 3 else image[..., :1].expand(*image.shape[:-1], 3)
    return (rgb.float().nan_to_num(0.0).clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def to_image(pictures: Sequence[np.ndarray]) -> Tensor:
    """IMAGE (N, H, W, 3); smaller pictures stand in the upper left of black."""
    return torch.from_numpy(stack(pictures)).float() / 255
