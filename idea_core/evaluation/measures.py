"""The measures: identity similarity, detection rate, prompt similarity (Celeb Basis, arXiv 2306.00926, sec. 4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..faces import FaceEngine
from ..faces.photos import read_photo
from ..text.prompts import without_people


class PromptScorer(Protocol):
    """Likeness of a picture and a text, as a cosine."""

    def score(self, picture: np.ndarray, text: str) -> float: ...


@dataclass(frozen=True)
class PictureScore:
    """One picture's measures.

    Attributes:
        prompt: what it was made from; None if unknown.
        faces: how many were found.
        identity: mean cosine of its largest face to the reference photos; None without a face.
        prompt_similarity: cosine to the prompt, its people left out; None if not measured.
    """

    path: Path
    prompt: str | None
    faces: int
    identity: float | None
    prompt_similarity: float | None


@dataclass(frozen=True)
class Evaluation:
    """The measures of several pictures; None where there is nothing to average."""

    scores: tuple[PictureScore, ...]

    @property
    def identity_strict(self) -> float | None:
        """Mean identity similarity; a picture without a face counts as 0."""
        return _mean([score.identity or 0.0 for score in self.scores])

    @property
    def identity_detected(self) -> float | None:
        """Mean identity similarity over the pictures with a face."""
        return _mean([score.identity for score in self.scores if score.identity is not None])

    @property
    def detection_rate(self) -> float | None:
        """Share of pictures with a face."""
        return _mean([float(score.faces > 0) for score in self.scores])

    @property
    def prompt_similarity(self) -> float | None:
        """Mean prompt similarity over the pictures where it was measured."""
        return _mean([s.prompt_similarity for s in self.scores if s.prompt_similarity is not None])

    def summary(self) -> dict[str, float | int | None]:
        return {
            "images": len(self.scores),
            "identity_similarity_strict": self.identity_strict,
            "identity_similarity_detected": self.identity_detected,
            "detection_rate": self.detection_rate,
            "prompt_similarity": self.prompt_similarity,
        }


def score_pictures(
    paths: Iterable[Path],
    engine: FaceEngine,
    references: Tensor,
    prompt_of: Callable[[Path], str | None],
    prompts: PromptScorer | None = None,
) -> Iterable[PictureScore]:
    """Each picture's measures.

    Args:
        references: (P, 512), L2-normalised face embeddings of the person's photos.
        prompt_of: a picture's prompt, or None.

    Raises:
        FaceError: a file that is no picture.
    """
    for path in paths:
        picture, prompt = read_photo(path), prompt_of(path)
        faces = engine.detect(picture)
        largest = max(faces, key=lambda face: face.area, default=None)
        text = without_people(prompt) if prompt else ""
        yield PictureScore(
            path=path,
            prompt=prompt,
            faces=len(faces),
            identity=None if largest is None else _identity(engine.embed(picture, largest), references),
            prompt_similarity=prompts.score(picture, text) if prompts and text else None,
        )


def _identity(embedding: np.ndarray, references: Tensor) -> float:
    normalised = torch.nn.functional.normalize(torch.from_numpy(embedding).float(), dim=0)
    return float((references @ normalised).mean())


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
