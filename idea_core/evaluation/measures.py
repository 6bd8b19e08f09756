"""The measures: face similarity, detection rate, prompt similarity (Celeb Basis, arXiv 2306.00926, sec. 4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from ..faces import Face, FaceEngine, IdEmbeds
from ..faces.photos import read_photo
from ..faces.score import embed_faces, largest, pick_faces, similarities, similarity_to_mean
from ..text.prompts import without_people
from .clip import ClipScorer


@dataclass(frozen=True)
class ImageScore:
    """One image's measures.

    Attributes:
        prompt: the image's prompt; None if unknown.
        faces: number of detected faces.
        mean_similarity: of the largest face to the reference images; None without a face.
        similarity_to_mean: of that face to the mean embedding of the references; None without a face.
        prompt_similarity: cosine to the prompt without its people; None if not measured.
        witness_similarity: as `mean_similarity`, by a second recogniser; None without a face or a witness.
    """

    path: Path
    prompt: str | None
    faces: int
    mean_similarity: float | None
    similarity_to_mean: float | None
    prompt_similarity: float | None
    witness_similarity: float | None = None


class Witness(NamedTuple):
    """A second recogniser, which no training used, and the reference images as it sees them.

    Attributes:
        references: embeddings (R, 512), L2-normalised.
    """

    engine: FaceEngine
    references: Tensor

    @classmethod
    def of(cls, engine: FaceEngine, finder: FaceEngine, photos: Sequence[np.ndarray]) -> Witness:
        """The witness of a person's photos, in which `finder` finds the faces."""
        return cls(engine, embed_faces(engine, photos, pick_faces(finder, photos, largest)))


def summarise(scores: Sequence[ImageScore]) -> dict[str, float | int | None]:
    """Number of images, and means over those where a measure is known; None if it is known for no image.

    In the `strict` measures an image without a face counts as 0. `similarity_to_mean_detected` is the figure that
    ID Similarity shows as `mean`.
    """
    return {
        "images": len(scores),
        "mean_similarity_strict": _mean(score.mean_similarity or 0.0 for score in scores),
        "mean_similarity_detected": _mean(score.mean_similarity for score in scores),
        "similarity_to_mean_detected": _mean(score.similarity_to_mean for score in scores),
        "detection_rate": _mean(float(score.faces > 0) for score in scores),
        "prompt_similarity": _mean(score.prompt_similarity for score in scores),
        "witness_similarity_strict": _witnessed(scores),
    }


def by_prompt(scores: Sequence[ImageScore]) -> dict[str, dict[str, float | int | None]]:
    """`summarise` of each prompt's images, in the order of the prompts, and how far they spread.

    `spread` is the standard deviation of the mean similarity over a prompt's images, no face as 0; None for one image.
    Images without a known prompt stand under "".
    """
    groups: dict[str, list[ImageScore]] = {}
    for score in scores:
        groups.setdefault(score.prompt or "", []).append(score)
    return {prompt: {**summarise(group), "spread": _spread(group)} for prompt, group in groups.items()}


def score_images(
    paths: Iterable[Path],
    engine: FaceEngine,
    references: IdEmbeds,
    prompt_of: Callable[[Path], str | None],
    clip: ClipScorer | None = None,
    witness: Witness | None = None,
) -> Iterator[ImageScore]:
    """Each image's measures.

    Args:
        references: embeddings of the person's photos.
        prompt_of: an image's prompt, or None.

    Raises:
        FaceError: a file that is no image.
    """
    for path in paths:
        image, prompt = read_photo(path), prompt_of(path)
        faces = engine.detect(image)
        face, text = largest(faces), without_people(prompt) if prompt else ""
        (embedding,) = embed_faces(engine, [image], [face])
        yield ImageScore(
            path=path,
            prompt=prompt,
            faces=len(faces),
            mean_similarity=float(similarities(embedding, references.embeds).mean()) if face else None,
            similarity_to_mean=float(similarity_to_mean(embedding, references.mean)) if face else None,
            prompt_similarity=clip.score(image, text) if clip and text else None,
            witness_similarity=_seen_by(witness, image, face) if witness and face else None,
        )


def _seen_by(witness: Witness, image: np.ndarray, face: Face) -> float:
    (embedding,) = embed_faces(witness.engine, [image], [face])
    return float(similarities(embedding, witness.references).mean())


def _witnessed(scores: Sequence[ImageScore]) -> float | None:
    """Mean of the witness, no face as 0; None if there was no witness, or no face at all."""
    if all(score.witness_similarity is None for score in scores):
        return None
    return _mean(score.witness_similarity or 0.0 for score in scores)


def _spread(scores: Sequence[ImageScore]) -> float | None:
    values = [score.mean_similarity or 0.0 for score in scores]
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
