"""Similarity of images to a person's mean embedding, and percent on a scale that the person's own photos set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..errors import FaceError
from ..images import to_pixels
from .embeds import IdEmbeds
from .encode import embed_chosen
from .face import FaceEngine
from .find import FaceSettings, find_face
from .score import similarity_to_mean

STRANGER = 0.0  # cosine of two people on average, if no other people are given
MIN_SPAN = 0.2  # of cosines from 0 % to 100 %; on a shorter scale two photos easily differ by hundreds of percent


@dataclass(frozen=True)
class Scale:
    """What cosines mean in percent.

    Attributes:
        same: 100 %: mean cosine of each reference photo to the mean of the others; None for a single photo.
        other: 0 %: mean cosine of other people to the mean of the references.
    """

    same: float | None
    other: float

    @classmethod
    def of(cls, references: IdEmbeds, others: IdEmbeds | None = None) -> Scale:
        """The scale of a person; `others` are embeddings of other people, None: `STRANGER`."""
        other = STRANGER if others is None else float((others.embeds @ references.mean).mean())
        rows = torch.arange(len(references.embeds))
        if len(rows) < 2:
            return cls(None, other)
        return cls(float(np.mean([float(references.embeds[i] @ references.only(rows != i).mean) for i in rows])), other)

    @property
    def ends(self) -> tuple[float, float] | None:
        """The cosines of 0 % and 100 %; None if there is a `problem`."""
        return None if self.same is None or self.same - self.other < MIN_SPAN else (self.other, self.same)

    @property
    def problem(self) -> str:
        """Why there is no scale in percent, as a sentence without its full stop; "" if there is one."""
        if self.same is None:
            return "give two or more reference photos"
        if self.ends is None:
            return (
                f"100 % would be a cosine of {self.same:.2f} and 0 % one of {self.other:.2f}, too near to each other: "
                "the reference photos look like several people, or the others like the person"
            )
        return ""

    def percent(self, cosine: float) -> float | None:
        """Similarity in percent; None if there is a `problem`."""
        if self.ends is None:
            return None
        low, high = self.ends
        return 100 * (cosine - low) / (high - low)


@dataclass(frozen=True)
class Likeness:
    """Images compared with a person.

    Attributes:
        cosines: each image's similarity to the references' mean embedding (`score.py`); None without a face.
        scale: what they mean in percent.
    """

    cosines: tuple[float | None, ...]
    scale: Scale

    @property
    def order(self) -> list[int]:
        """Indices of the images, most similar first; those without a face come last, in their own order."""
        return sorted(range(len(self.cosines)), key=lambda i: (self.cosines[i] is None, -(self.cosines[i] or 0.0), i))

    @property
    def detected(self) -> list[float]:
        """The cosines of the images with a face."""
        return [cosine for cosine in self.cosines if cosine is not None]

    @property
    def mean(self) -> float | None:
        """Mean cosine over the images with a face."""
        return float(np.mean(self.detected)) if self.detected else None

    @property
    def detection_rate(self) -> float:
        return len(self.detected) / len(self.cosines)

    @property
    def percent(self) -> float | None:
        return None if self.mean is None else self.scale.percent(self.mean)

    def report(self) -> str:
        """A line for each image, most similar first, and lines for the mean and the scale."""
        scale = f"no percent: {self.scale.problem}."
        if self.scale.ends:
            low, high = self.scale.ends
            scale = f"100 % is a cosine of {high:.2f}; 0 % one of {low:.2f}"
        lines = [f"image {i}: {described(self.cosines[i], self.scale)}" for i in self.order]
        lines.append(
            f"mean: {described(self.mean, self.scale)}, a face in {100 * self.detection_rate:.0f} % of the images"
        )
        return "\n".join([*lines, f"scale: {scale}"])


def compare(
    engine: FaceEngine,
    images: Sequence[np.ndarray],
    references: IdEmbeds,
    others: IdEmbeds | None = None,
    settings: FaceSettings = FaceSettings(),
) -> Likeness:
    """The similarity of the faces in images to a person's mean embedding.

    Args:
        images: each (H, W, 3), RGB, uint8; of any sizes.
        settings: which face is compared; a missing face is never an error here.

    Raises:
        FaceError: no images, or one without pixels.
    """
    if not images:
        raise FaceError("at least one image", "none", "Connect images.")
    settings = replace(settings, skip=True)
    faces = [find_face(engine, image, index, settings) for index, image in enumerate(images)]
    selected = [photo for photo in faces if photo.chosen]
    cosines: list[float | None] = [None] * len(faces)
    if selected:
        embeds = embed_chosen(engine, selected, settings.aligned).embeds
        for photo, cosine in zip(selected, similarity_to_mean(embeds, references.mean)):
            cosines[photo.index] = float(cosine)
    return Likeness(tuple(cosines), Scale.of(references, others))


def described(cosine: float | None, scale: Scale) -> str:
    """A cosine as text, in percent too if there is a scale."""
    if cosine is None:
        return "no face"
    percent = scale.percent(cosine)
    return f"cosine {cosine:.2f}" + ("" if percent is None else f" = {percent:.0f} %")


def likeness_to(engine: FaceEngine, references: IdEmbeds) -> Callable[[torch.Tensor], float]:
    """A measure of a training's images (B, H, W, 3) in 0…1.

    Returns:
        A function of the images: the mean similarity of their faces to the mean embedding. An image without a face
        counts as 0.
    """

    def likeness(images: torch.Tensor) -> float:
        return float(
            np.mean([cosine or 0.0 for cosine in compare(engine, list(to_pixels(images)), references).cosines])
        )

    return likeness
