"""Finds the faces in a photo and chooses the person's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import nan

import numpy as np

from ..errors import ConfigError, FaceError
from ..settings import Settings, setting
from .embeds import IdEmbeds
from .face import MIN_SCORE, Face, FaceEngine
from .score import embed_crops, similarity_to_mean

PAD = 0.25  # margin on each side, in photo sizes, for a second detection in a tight crop
SIZES = (640, 512, 384, 256)  # of the detector's input; smaller ones find a face that fills the photo

_RULES: dict[str, Callable[[Face], float]] = {
    "largest": lambda face: face.area,
    "most certain": lambda face: face.score,
    "left-most": lambda face: -face.center[0],
    "right-most": lambda face: face.center[0],
}
NUMBER, NEAREST = "by number", "nearest"
RULES = (*_RULES, NUMBER, NEAREST)


@dataclass(frozen=True)
class FaceSettings(Settings):
    """Choice of the person's face in photos. `nearest_to` is the person's embeddings, for face = nearest."""

    face: str = setting(
        "largest",
        "Face to use if there are several: by size, detection score or position, by number, or most like nearest_to.",
        choices=RULES,
    )
    number: int = setting(
        1, "Number of the face, counted from left to right. It needs face = by number.", min=1, soft_max=99
    )
    nearest_to: IdEmbeds | None = None
    min_score: float = setting(
        MIN_SCORE,
        "Detection score below which a face does not count. Lower it for blurred or turned faces.",
        above=0,
        below=1,
        soft_max=0.95,
    )
    skip: bool = setting(False, "Skip photos that cannot be read or have no such face. Otherwise they are an error.")
    leave_out_outliers: bool = setting(False, "Leave out photos that look like another person.")
    aligned: bool = setting(
        False,
        "The photos are square, aligned crops of one face, such as 112 × 112. No detector is used.",
        advanced=True,
    )

    def _check(self) -> None:
        if self.face == NEAREST and self.nearest_to is None:
            raise ConfigError("ID_EMBEDS that the face is nearest to", "none", "Connect them, or change face.")


@dataclass(frozen=True, eq=False)
class FacePhoto:
    """A photo, the faces in it from left to right, and the chosen face.

    Attributes:
        photo: (H, W, 3), RGB, uint8.
        index: number of the photo, from 0.
        left_out: why the photo is not used; "" if it is.
        cosine: similarity of the chosen face to the mean embedding of the photos in use.
        outlier: whether the face looks like another person than the others.
    """

    photo: np.ndarray
    faces: tuple[Face, ...]
    chosen: Face | None
    index: int = 0
    left_out: str = ""
    cosine: float = nan
    outlier: bool = False


def find_face(engine: FaceEngine, photo: np.ndarray, index: int, settings: FaceSettings) -> FacePhoto:
    """The person's face in a photo (H, W, 3), RGB, uint8.

    Raises:
        FaceError: the photo has another shape or, unless `settings.skip`, no such face.
    """
    if photo.ndim != 3 or photo.shape[2] != 3 or 0 in photo.shape or photo.dtype != np.uint8:
        got = f"shape {photo.shape}, {photo.dtype}"
        raise FaceError(f"photo {index} with pixels, (height, width, 3), uint8", got, "Load the photo again.")
    height, width = photo.shape[:2]
    if settings.aligned:
        if height != width:
            got = f"{width} × {height} pixels"
            raise FaceError(f"photo {index} to be a square crop of a face", got, "Switch aligned off.")
        face = Face.aligned(width)
        return FacePhoto(photo, (face,), face, index)
    faces = tuple(sorted(_detect(engine, photo, settings.min_score), key=lambda face: face.center[0]))
    try:
        return FacePhoto(photo, faces, _choose(engine, photo, index, faces, settings), index)
    except FaceError as error:
        if not settings.skip:
            raise
        return FacePhoto(photo, faces, None, index, left_out=error.got)


def _detect(engine: FaceEngine, photo: np.ndarray, min_score: float) -> list[Face]:
    """Faces at the first detector size that finds any; a margin helps with faces that the border cuts."""
    dy, dx = (round(PAD * side) for side in photo.shape[:2])
    for size in SIZES:
        if max(photo.shape[:2]) >= size * min(photo.shape[:2]):
            break  # the photo would be less than a pixel wide at this size
        if faces := engine.detect(photo, size, min_score):
            return faces
        padded = np.pad(photo, ((dy, dy), (dx, dx), (0, 0)), mode="edge")
        if faces := engine.detect(padded, size, min_score):
            return [face.shifted(-dx, -dy) for face in faces]
    return []


def _choose(engine: FaceEngine, photo: np.ndarray, index: int, faces: tuple[Face, ...], settings: FaceSettings) -> Face:
    if not faces:
        pixels, sizes = f"{photo.shape[1]} × {photo.shape[0]} pixels", f"{SIZES[0]} to {SIZES[-1]}"
        raise FaceError(
            f"a face in photo {index}",
            f"none in {pixels}, nor with a margin around it, at detector sizes {sizes}",
            "Take a photo with a larger, unobstructed face, crop closer, or lower the minimum score.",
        )
    if settings.face == NEAREST and settings.nearest_to is not None:
        embeds = embed_crops(engine, [engine.align(photo, face) for face in faces])
        return faces[int(similarity_to_mean(embeds, settings.nearest_to.mean).argmax())]
    if settings.face != NUMBER:
        return max(faces, key=_RULES[settings.face])
    if settings.number > len(faces):
        raise FaceError(
            f"face {settings.number} in photo {index}",
            f"{len(faces)} of them" if len(faces) > 1 else "only one",
            "Choose a smaller number: the preview counts faces from left to right.",
        )
    return faces[settings.number - 1]
