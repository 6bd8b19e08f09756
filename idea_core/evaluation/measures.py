"""The measures: face similarity, detection rate, prompt similarity (Celeb Basis, arXiv 2306.00926, sec. 4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from ..faces import FaceEngine, IdEmbeds
from ..faces.photos import read_photo
from ..faces.score import embed_faces, largest, similarities, similarity_to_mean
from ..text.prompts import without_people


class PromptScorer(Protocol):
    """Likeness of a picture and a text, as a cosine."""

    def score(self, picture: np.ndarray, text: str) -> float: ...


@dataclass(frozen=True)
class PictureScore:
    """One image's measures.

    Attributes:
        prompt: what it was made from; None if unknown.
        faces: how many were found.
        mean_similarity: of its largest face to the reference images; None without a face.
        similarity_to_mean: of that face to the mean embedding of the references; None without a face.
        prompt_similarity: cosine to the prompt, its people left out; None if not measured.
    """

    path: Path
    prompt: str | None
    faces: int
    mean_similarity: float | None
    similarity_to_mean: float | None
    prompt_similarity: float | None


@dataclass(frozen=True)
class Evaluation:
    """The measures of several images; None where there is nothing to average."""

    scores: tuple[PictureScore, ...]

    @property
    def mean_similarity_strict(self) -> float | None:
        """Mean similarity to the reference images; an image without a face counts as 0."""
        return _mean([score.mean_similarity or 0.0 for score in self.scores])

    @property
    def mean_similarity_detected(self) -> float | None:
        """Mean similarity to the reference images, over the images with a face."""
        return _mean([score.mean_similarity for score in self.scores if score.mean_similarity is not None])

    @property
    def similarity_to_mean_detected(self) -> float | None:
        """Similarity to the mean embedding over the images with a face: what ID Similarity shows as `mean`."""
        return _mean([score.similarity_to_mean for score in self.scores if score.similarity_to_mean is not None])

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
            "mean_similarity_strict": self.mean_similarity_strict,
            "mean_similarity_detected": self.mean_similarity_detected,
            "similarity_to_mean_detected": self.similarity_to_mean_detected,
            "detection_rate": self.detection_rate,
            "prompt_similarity": self.prompt_similarity,
        }


def score_pictures(
    paths: Iterable[Path],
    engine: FaceEngine,
    references: IdEmbeds,
    prompt_of: Callable[[Path], str | None],
    prompts: PromptScorer | None = None,
) -> Iterable[PictureScore]:
    """Each picture's measures.

    Args:
        references: of the person's photos.
        prompt_of: a picture's prompt, or None.

    Raises:
        FaceError: a file that is no picture.
    """
    for path in paths:
        picture, prompt = read_photo(path), prompt_of(path)
        faces = engine.detect(picture)
        face, text = largest(faces), without_people(prompt) if prompt else ""
        (embedding,) = embed_faces(engine, [picture], [face])
        yield PictureScore(
            path=path,
            prompt=prompt,
            faces=len(faces),
            mean_similarity=float(similarities(embedding, references.embeds).mean()) if face else None,
            similarity_to_mean=float(similarity_to_mean(embedding, references.mean)) if face else None,
            prompt_similarity=prompts.score(picture, text) if prompts and text else None,
        )


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
