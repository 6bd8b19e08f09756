"""Images' similarity to a person's mean embedding, and percent on a scale that the person's own photos set."""

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

STRANGER = 0.0  # cosine of two people on average, where no other people are given
LEAST_SPAN = (
    0.2  # of cosines from 0 % to 100 %; on a shorter scale what differs in any two photos is hundreds of percent
)


@dataclass(frozen=True)
class Scale:
    """What cosines mean: percent of likeness.

    Attributes:
        same: mean cosine of each reference photo to the mean of the others, 100 %; None for a single photo.
        other: mean cosine of other people to the references, 0 %.
    """

    same: float | None
    other: float

    @classmethod
    def of(cls, references: IdEmbeds, others: IdEmbeds | None = None) -> Scale:
        """The scale of a person.

        Args:
            others: other people, one an embedding; None: `STRANGER`.
        """
        count = len(references.embeds)
        rows = torch.arange(count)
        left_out = [float(references.embeds[i] @ references.only(rows != i).mean) for i in rows] if count > 1 else []
        other = STRANGER if others is None else float((others.embeds @ references.mean).mean())
        return cls(float(np.mean(left_out)) if left_out else None, other)

    @property
    def problem(self) -> str:
        """Why there are no percent, as a sentence without its end; "" where there are."""
        if self.same is None:
            return "give two or more reference photos"
        if self.same - self.other < LEAST_SPAN:
            return (
                f"100 % would be a cosine of {self.same:.2f} and 0 % one of {self.other:.2f}, too near to each other: "
                "the reference photos look like several people, or the others like the person"
            )
        return ""

    def in_words(self) -> str:
        """The scale, or why there is none."""
        if self.problem:
            return f"no percent: {self.problem}."
        return f"100 % is a cosine of {self.same:.2f}; 0 % one of {self.other:.2f}"

    def percent(self, cosine: float) -> float | None:
        """Likeness; None where there is a `problem`."""
        if self.problem:
            return None
        return 100 * (cosine - self.other) / (self.same - self.other)


@dataclass(frozen=True)
class Likeness:
    """Pictures compared with a person.

    Attributes:
        cosines: each image's similarity to the references' mean embedding (`score.py`); None without a face.
        scale: what they mean.
    """

    cosines: tuple[float | None, ...]
    scale: Scale

    @property
    def order(self) -> list[int]:
        """Numbers of the pictures, best first; those without a face come last, as they came."""
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
        """A line for each picture, best first, and one for all."""
        lines = [f"image {i}: {described(self.cosines[i], self.scale)}" for i in self.order]
        lines.append(f"mean: {described(self.mean, self.scale)}, a face in {self.detection_rate:.0%} of the images")
        lines.append(f"scale: {self.scale.in_words()}")
        return "\n".join(lines)


def compare(
    engine: FaceEngine,
    pictures: Sequence[np.ndarray],
    references: IdEmbeds,
    others: IdEmbeds | None = None,
    settings: FaceSettings = FaceSettings(),
) -> Likeness:
    """The similarity of the faces in images to a person's mean embedding.

    Args:
        pictures: each (H, W, 3), RGB, uint8; of any sizes.
        settings: which face is compared; one that is missing is never an error here.

    Raises:
        FaceError: no pictures, or one without pixels.
    """
    if not pictures:
        raise FaceError("at least one image", "none", "Connect images.")
    settings = replace(settings, skip=True)
    faces = [find_face(engine, picture, index, settings) for index, picture in enumerate(pictures)]
    selected = [photo for photo in faces if photo.chosen]
    cosines: list[float | None] = [None] * len(faces)
    if selected:
        embeds = embed_chosen(engine, selected, settings.aligned).embeds
        for photo, cosine in zip(selected, similarity_to_mean(embeds, references.mean)):
            cosines[photo.index] = float(cosine)
    return Likeness(tuple(cosines), Scale.of(references, others))


def described(cosine: float | None, scale: Scale) -> str:
    """A cosine in words, and in percent where there is a scale."""
    if cosine is None:
        return "no face"
    percent = scale.percent(cosine)
    return f"cosine {cosine:.2f}" + ("" if percent is None else f", {percent:.0f} % alike")


def likeness_to(engine: FaceEngine, references: IdEmbeds) -> Callable[[torch.Tensor], float]:
    """What measures a training's images.

    Returns:
        A function of images (B, H, W, 3) in 0…1: their faces' similarity to the mean embedding, on average. An image
        without a face counts as 0.
    """

    def likeness(images: torch.Tensor) -> float:
        pictures = list(to_pixels(images))
        return float(np.mean([cosine or 0.0 for cosine in compare(engine, pictures, references).cosines]))

    return likeness
