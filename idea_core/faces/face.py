"""A face in a photo, and what every engine that finds and embeds faces can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import FaceError
from ..method.modules import ARCFACE_WIDTH

DETECTOR_SIZE = 640  # side in pixels of the square that a photo is scaled into before detection
MIN_SCORE = 0.5
SIDE_BY_SIDE = 8  # photos at most that faces are looked for in at once

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
        """The face of a square crop of `side` pixels that is aligned already."""
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
    """A recogniser's ONNX file, and what it is given.

    Attributes:
        side: of its crops, in pixels.
        mean, scale: a crop's values in 0…255, less the mean, times the scale.
    """

    path: Path
    side: int
    mean: float
    scale: float


class FaceEngine(ABC):
    """A face detector and a face recogniser."""

    providers: tuple[str, ...]
    """Execution providers that run, in order of preference."""

    @abstractmethod
    def detect(self, photo: np.ndarray, size: int = DETECTOR_SIZE, min_score: float = MIN_SCORE) -> list[Face]:
        """Faces in a photo (H, W, 3), RGB, uint8, best first.

        Args:
            size: side of the square that the photo is scaled into; a detector of fixed size keeps its own.
        """

    @abstractmethod
    def require_detector(self) -> None:
        """Raise `FaceError` if there is a recogniser alone, before work that will look for faces."""

    def detect_all(self, photos: Sequence[np.ndarray]) -> list[list[Face]]:
        """`detect` of several photos; on a processor side by side, since one keeps few cores busy."""
        if set(self.providers) != {"CPUExecutionProvider"}:  # others may not run one model in several threads
            return [self.detect(photo) for photo in photos]
        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            return list(pool.map(self.detect, photos))

    @abstractmethod
    def align(self, photo: np.ndarray, face: Face) -> np.ndarray:
        """The recogniser's crop (S, S, 3), RGB, uint8: the face's key points brought to ArcFace's template."""

    @property
    @abstractmethod
    def recogniser_file(self) -> RecogniserFile:
        """Where the recogniser is, for those who want its network."""

    @abstractmethod
    def embed_crops(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """ArcFace embeddings (P, 512) of aligned crops; not normalised."""

    def embed(self, photo: np.ndarray, face: Face) -> np.ndarray:
        """ArcFace embedding (512,) of a face; not normalised."""
        return self.embed_crops([self.align(photo, face)])[0]

    @staticmethod
    def require_width(width: int | str | None) -> None:
        """Raise `FaceError` unless a recogniser's embeddings have ArcFace's width; a name or None is any."""
        if isinstance(width, int) and width != ARCFACE_WIDTH:
            raise FaceError(f"a recogniser of {ARCFACE_WIDTH} values", str(width), "Choose an ArcFace recogniser.")


def batches(crops: Sequence[np.ndarray], fixed: int | str | None, most: int = 8) -> list[Sequence[np.ndarray]]:
    """Crops in batches that a recogniser takes.

    Args:
        fixed: the model's own batch size; a name or None if it takes any.
        most: crops in a batch, which bounds the memory.
    """
    size = 1 if isinstance(fixed, int) else most
    return [crops[first : first + size] for first in range(0, len(crops), size)]
