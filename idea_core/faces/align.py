"""Scaling a photo and aligning a face, pixel for pixel as insightface does with OpenCV.

Without OpenCV, numpy does the same. Single pixels then differ by rounding, since OpenCV rounds to 1/32 of a pixel.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType

import numpy as np

from .face import TEMPLATE, TEMPLATE_SIDE


@cache
def opencv() -> ModuleType | None:
    """OpenCV, or None if it is not installed."""
    try:
        import cv2
    except ImportError:
        return None
    return cv2


def resize(photo: np.ndarray, width: int, height: int) -> np.ndarray:
    """A photo (H, W, 3) uint8, scaled bilinearly without smoothing: (height, width, 3)."""
    if cv2 := opencv():
        return cv2.resize(photo, (width, height))
    rows, columns = photo.shape[:2]
    x = ((np.arange(width) + 0.5) * columns / width - 0.5).clip(0, columns - 1)
    y = ((np.arange(height) + 0.5) * rows / height - 0.5).clip(0, rows - 1)
    return _sample(photo, *np.meshgrid(x, y))


def align(photo: np.ndarray, keypoints: np.ndarray, side: int) -> np.ndarray:
    """The crop (side, side, 3) uint8 with the five key points on ArcFace's template; black beyond the photo."""
    to_crop = similarity(keypoints, template(side))
    if cv2 := opencv():
        return cv2.warpAffine(photo, to_crop, (side, side), borderValue=0.0)
    to_photo = np.linalg.inv(np.vstack([to_crop, [0, 0, 1]]))[:2]
    x, y = np.meshgrid(np.arange(side), np.arange(side))
    x, y = np.moveaxis(np.stack([x, y, np.ones_like(x)], axis=-1) @ to_photo.T, -1, 0)
    border = 1  # of black, so that the photo's edge fades as in OpenCV
    black = np.pad(photo, ((border, border), (border, border), (0, 0)))
    height, width = black.shape[:2]
    return _sample(black, (x + border).clip(0, width - 1), (y + border).clip(0, height - 1))


def template(side: int) -> np.ndarray:
    """(5, 2) the key points in a recogniser's crop; crops whose side is a multiple of 128 have a wider border."""
    if side % TEMPLATE_SIDE == 0:
        return TEMPLATE * (side / TEMPLATE_SIDE)
    return TEMPLATE * (side / 128) + np.array([8 * side / 128, 0], np.float32)


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(2, 3) least-squares similarity transform of points (N, 2) to others: Umeyama 1991, eq. 34 to 43."""
    source, target = source.astype(np.float64), target.astype(np.float64)
    from_mean, to_mean = source.mean(0), target.mean(0)
    left, stretch, right = np.linalg.svd((target - to_mean).T @ (source - from_mean) / len(source))
    signs = np.array([1.0, np.sign(np.linalg.det(left) * np.linalg.det(right))])  # a rotation, never a mirror image
    turn = left @ np.diag(signs) @ right
    turn *= (stretch * signs).sum() / max((source - from_mean).var(0).sum(), 1e-12)
    return np.column_stack([turn, to_mean - turn @ from_mean])


def _sample(photo: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bilinear values (h, w, 3) uint8 of a photo at points (h, w) inside it."""
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, bottom = (left + 1).clip(max=photo.shape[1] - 1), (top + 1).clip(max=photo.shape[0] - 1)
    dx, dy = (x - left)[..., None], (y - top)[..., None]
    upper = photo[top, left] * (1 - dx) + photo[top, right] * dx
    lower = photo[bottom, left] * (1 - dx) + photo[bottom, right] * dx
    return np.rint(upper * (1 - dy) + lower * dy).astype(np.uint8)
