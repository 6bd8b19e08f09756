"""Photos → faces → ID_EMBEDS: the mean ArcFace embedding of a person, weighted by detection score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import FaceError
from .face import Face, FaceEngine

PAD = 0.25  # of the photo's size on each side, for the second look at a tight crop


@dataclass(frozen=True, eq=False)
class FacePhoto:
    """A photo, the faces in it, and which of them was taken."""

    photo: np.ndarray  # (H, W, 3), RGB, uint8
    faces: tuple[Face, ...]
    chosen: Face


@dataclass(frozen=True, eq=False)
class IdEmbeds:
    """A person's face embeddings.

    Attributes:
        embeds: (P, 512), one L2-normalised embedding a photo.
        scores: (P,) detection scores.
    """

    embeds: Tensor
    scores: Tensor

    @property
    def mean(self) -> Tensor:
        """`a` (512,): mean weighted by detection score, L2-normalised."""
        return torch.nn.functional.normalize((self.embeds * self.scores[:, None]).sum(0), dim=0)


def encode_photos(engine: FaceEngine, photos: Sequence[np.ndarray]) -> tuple[IdEmbeds, list[FacePhoto]]:
    """Find the person in each photo and embed the face.

    Args:
        photos: each (H, W, 3), RGB, uint8; of any sizes.

    Raises:
        FaceError: no photos, a photo without pixels, or one without a face; it names the photo's index.
    """
    if not photos:
        raise FaceError("at least one photo", "none", "Connect an image.")
    found = [_find_face(engine, photo, index) for index, photo in enumerate(photos)]
    embeds = torch.tensor(np.stack([engine.embed(f.photo, f.chosen) for f in found]), dtype=torch.float32)
    scores = torch.tensor([f.chosen.score for f in found], dtype=torch.float32)
    return IdEmbeds(torch.nn.functional.normalize(embeds), scores), found


def _find_face(engine: FaceEngine, photo: np.ndarray, index: int) -> FacePhoto:
    """The largest face of a photo; one cut by the border is looked for again with a margin around the photo."""
    if photo.ndim != 3 or photo.shape[2] != 3 or 0 in photo.shape:
        raise FaceError(
            f"photo {index} with pixels, (height, width, 3)", f"shape {photo.shape}", "Load the photo again."
        )
    faces = engine.detect(photo) or _detect_padded(engine, photo)
    if not faces:
        height, width = photo.shape[:2]
        raise FaceError(
            f"a face in photo {index}",
            f"none in {width} × {height} pixels, nor with a margin around it",
            "Take a photo with a larger, unobstructed face, or crop nearer to it.",
        )
    return FacePhoto(photo, tuple(faces), max(faces, key=lambda face: face.area))


def _detect_padded(engine: FaceEngine, photo: np.ndarray) -> list[Face]:
    dy, dx = (round(PAD * size) for size in photo.shape[:2])
    padded = np.pad(photo, ((dy, dy), (dx, dx), (0, 0)), mode="edge")
    return [face.shifted(-dx, -dy) for face in engine.detect(padded)]
