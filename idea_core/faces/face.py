"""A face in a photo, and the interface of every engine that finds and embeds faces."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FaceError
from ..method.modules import ARCFACE_WIDTH

DETECTOR_SIZE = 640  # side in pixels of the square that a photo is scaled into before detection
MIN_SCORE = 0.5
MAX_THREADS = 8  # photos in which faces are detected at once
MAX_BATCH = 8  # crops that the recogniser embeds at once, which bounds the memory

# ArcFace's template (arXiv 1801.07698, sec. 3.1): where alignment brings the five key points in 112 × 112 pixels.
TEMPLATE_SIDE = 112
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float32
)


@dataclass(frozen=True, eq=False)
class Face:
    """One detected face, in pixels of its photo.

    Attributes:
        box: (4,) left, top, right, bottom.
        keypoints: (5, 2) x, y of left eye, right eye, nose, left and right corner of the mouth.
        score: detection score in 0…1.
    """

    box: np.ndarray
    keypoints: np.ndarray
    score: float

    @classmethod
    def aligned(cls, side: int) -> Face:
        """The face of a square, aligned crop of `side` pixels."""
        return cls(np.array([0, 0, side, side], np.float32), TEMPLATE * (side / TEMPLATE_SIDE), 1.0)

    @property
    def area(self) -> float:
        return float((self.box[2] - self.box[0]) * (self.box[3] - self.box[1]))

    @property
    def center(self) -> np.ndarray:
        """(2,) x, y of the box's middle."""
        return (self.box[:2] + self.box[2:]) / 2

    @property
    def tilt(self) -> float:
        """Angle of the line through the eyes in radians, clockwise as seen; 0 for level eyes."""
        dx, dy = self.keypoints[1] - self.keypoints[0]
        return float(np.arctan2(dy, dx))

    def shifted(self, dx: float, dy: float) -> Face:
        return Face(self.box + np.array([dx, dy, dx, dy]), self.keypoints + np.array([dx, dy]), self.score)


@dataclass(frozen=True)
class RecogniserFile:
    """A recogniser's ONNX file and its input.

    Attributes:
        side: of its crops, in pixels.
        mean, scale: the input is a crop's values in 0…255, less the mean, times the scale.
    """

    path: Path
    side: int
    mean: float
    scale: float


class FaceEngine(ABC):
    """A face detector and a face recogniser."""

    providers: tuple[str, ...]
    """Execution providers in use, in order of preference."""

    _pack_name: str
    _detector: Any  # the library's own object; None if the pack is a recogniser alone
    _batch_size: int | str | None  # the recogniser's; a name or None if it accepts any

    @abstractmethod
    def detect(self, photo: np.ndarray, size: int = DETECTOR_SIZE, min_score: float = MIN_SCORE) -> list[Face]:
        """Faces in a photo (H, W, 3), RGB, uint8, best first.

        Args:
            size: side of the square that the photo is scaled into; a detector of fixed size keeps its own.
        """

    def require_detector(self) -> None:
        """Raise `FaceError` if there is a recogniser alone, before work that detects faces."""
        if self._detector is None:
            raise FaceError(
                "a face detector",
                f"{self._pack_name}, a recogniser alone",
                "Choose a whole pack; ID Encode and ID Similarity can do without, with aligned crops and `aligned`.",
            )

    def detect_all(self, photos: Sequence[np.ndarray]) -> list[list[Face]]:
        """`detect` on several photos, in parallel on the CPU, since one photo uses few cores."""
        if set(self.providers) != {"CPUExecutionProvider"}:  # others may not run one model in several threads
            return [self.detect(photo) for photo in photos]
        with ThreadPoolExecutor(MAX_THREADS) as pool:
            return list(pool.map(self.detect, photos))

    @abstractmethod
    def align(self, photo: np.ndarray, face: Face) -> np.ndarray:
        """The recogniser's crop (S, S, 3), RGB, uint8: the face's key points brought to ArcFace's template."""

    @property
    @abstractmethod
    def recogniser_file(self) -> RecogniserFile:
        """The recogniser's file, from which its network can be read."""

    def embed_crops(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """ArcFace embeddings (P, 512) of aligned crops; not normalised."""
        size = 1 if isinstance(self._batch_size, int) else MAX_BATCH
        parts = [self._embed(crops[first : first + size]) for first in range(0, len(crops), size)]
        return np.concatenate([np.zeros((0, ARCFACE_WIDTH), np.float32), *parts])

    @abstractmethod
    def _embed(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """`embed_crops` of one batch."""

    def embed(self, photo: np.ndarray, face: Face) -> np.ndarray:
        """ArcFace embedding (512,) of a face; not normalised."""
        return self.embed_crops([self.align(photo, face)])[0]

    @staticmethod
    def require_width(width: int | str | None) -> None:
        """Raise `FaceError` unless a recogniser's embeddings have ArcFace's width; a name or None is any."""
        if isinstance(width, int) and width != ARCFACE_WIDTH:
            raise FaceError(f"a recogniser of {ARCFACE_WIDTH} values", str(width), "Choose an ArcFace recogniser.")
