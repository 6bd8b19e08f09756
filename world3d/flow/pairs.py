"""Pictures of two people beside each other, which teach the base model two names in one prompt.

Each shows the middle three quarters of a picture, so a picture of two is half as wide again as one of one.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..scenes import SIZE

SHARE = 0.15  # of a training's batches
_MARGIN = 8  # a picture's width over that of the strip it loses at either side
_LOST = SIZE // _MARGIN
WIDTH = 2 * (SIZE - 2 * _LOST)  # pixels of a picture of two


def caption(left: str, right: str) -> str:
    return f"a photo of {left} and {right}"


def beside(left: Tensor, right: Tensor) -> Tensor:
    """The middles of two latents (…, h, w) as one (…, h, 1.5 w)."""
    lost = left.shape[-1] // _MARGIN
    return torch.cat([part[..., lost:-lost] for part in (left, right)], -1)


def halves(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both people of a picture (S, 1.5 S, 3), each in the middle of (S, S, 3) whose edges go on to the sides."""
    left, right = map(_extended, np.split(picture, 2, axis=1))
    return left, right


def middle(picture: np.ndarray) -> np.ndarray:
    """What a picture of two keeps of a picture (S, S, 3), as `halves` returns it."""
    return _extended(picture[:, _LOST:-_LOST])


def _extended(half: np.ndarray) -> np.ndarray:
    return np.pad(half, ((0, 0), (_LOST, _LOST), (0, 0)), "edge")
