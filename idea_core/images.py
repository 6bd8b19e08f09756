"""Images as numbers: 0…1 in tensors, 0…255 in files and face models."""

from __future__ import annotations

import numpy as np
from torch import Tensor


def to_pixels(images: Tensor) -> np.ndarray:
    """Images (…, H, W, 3) in 0…1 on the CPU → uint8."""
    return (images * 255).round().byte().numpy()
