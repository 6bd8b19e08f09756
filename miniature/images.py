"""Images as tensors and as arrays of bytes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def to_photo(picture: Tensor) -> np.ndarray:
    """(3, H, W) in 0…1 → (H, W, 3) uint8."""
    return (picture.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)


def to_tensor(pictures: Sequence[Image.Image] | Sequence[np.ndarray] | np.ndarray) -> Tensor:
    """Images, or arrays (H, W, 3) of bytes → (B, 3, H, W) in 0…1."""
    return torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2) / 255


def to_signed(pictures: Sequence[np.ndarray] | np.ndarray) -> Tensor:
    """Arrays (H, W, 3) of bytes → (B, 3, H, W) in −1…1."""
    return to_tensor(pictures) * 2 - 1
