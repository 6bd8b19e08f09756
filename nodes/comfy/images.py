"""ComfyUI's IMAGE tensors and the core's arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from comfy_api.v0_0_2 import io
from torch import Tensor

from ...idea_core.faces.pictures import stack
from ..common import require


def first(value: Any) -> Any:
    """First value of an input that comes as a list."""
    return value[0] if isinstance(value, list) else value


def single_images(batches: Sequence[Tensor]) -> list[Tensor]:
    """Every image (H, W, C) of batches of different sizes."""
    for batch in batches:
        require_images(batch)
    return [image for batch in batches for image in batch]


def require_images(images: Any) -> None:
    """Raise `SocketError` unless it is an IMAGE: values without a link, and some nodes, are other things."""
    require(images, Tensor, io.Image, "Load Image")


def to_uint8(image: Tensor) -> np.ndarray:
    """IMAGE (H, W, C) in 0…1 → (H, W, 3) uint8. Alpha is left out, grey becomes RGB, NaN becomes black."""
    rgb = image[..., :3] if image.shape[-1] >= 3 else image[..., :1].expand(*image.shape[:-1], 3)
    return (rgb.float().nan_to_num(0.0).clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def to_image(arrays: Sequence[np.ndarray]) -> Tensor:
    """uint8 arrays (H, W, 3) → IMAGE (N, H, W, 3); smaller ones are padded with black on the right and below."""
    return torch.from_numpy(stack(arrays)).float() / 255
