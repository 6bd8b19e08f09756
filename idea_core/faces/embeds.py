"""ID_EMBEDS: the ArcFace embeddings of a person's photos, their mean, blends of people, and the file."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import ConfigError, FaceError, IdentityFileError
from ..files.format import FileFormat
from ..files.tensorfile import write_tensors
from ..method.modules import ARCFACE_WIDTH

SAME_PERSON = 0.25  # cosine of two ArcFace embeddings; below it they are hardly one person's
SAME_SHARE = 0.5  # of the cosines that most photos have; weak recognisers give strangers cosines above SAME_PERSON
_REMEDY = "Choose a file that `idea encode` wrote, or encode the photos again."
FORMAT = FileFormat("id-ea-face", "1", _REMEDY)


@dataclass(frozen=True, eq=False, repr=False)
class IdEmbeds:
    """A person's face embeddings.

    Attributes:
        embeds: (P, 512), one L2-normalised embedding per photo.
        scores: (P,) detection scores.
    """

    embeds: Tensor
    scores: Tensor

    def __repr__(self) -> str:  # without tensors, because error reports contain it
        return f"IdEmbeds(photos={len(self.embeds)})"

    @classmethod
    def of_mean(cls, mean: Tensor) -> IdEmbeds:
        """A person of whom only the mean embedding (512,) is left, as in a person's file."""
        return cls(torch.nn.functional.normalize(mean.float(), dim=0)[None], torch.ones(1))

    @property
    def mean(self) -> Tensor:
        """`a` (512,): mean weighted by detection score, L2-normalised."""
        return torch.nn.functional.normalize((self.embeds * self.scores[:, None]).sum(0), dim=0)

    def outliers(self) -> Tensor:
        """(P,) bool: the photos that do not look like the person in more than half of the others.

        Two photos look alike above `SAME_PERSON`, and above `SAME_SHARE` of what the most typical photo has with half
        of the others.
        """
        count = len(self.embeds)
        cosines = self.embeds @ self.embeds.T
        others = cosines[~torch.eye(count, dtype=torch.bool)].view(count, -1)  # (P, P − 1)
        typical = others.median(1).values.max() if count > 1 else torch.tensor(0.0)
        unlike = cosines < max(SAME_PERSON, SAME_SHARE * float(typical))
        unlike.fill_diagonal_(False)
        return unlike.sum(1) > (len(unlike) - 1) / 2

    def only(self, rows: Tensor) -> IdEmbeds:
        """The embeddings in these rows, (P,) bool."""
        return IdEmbeds(self.embeds[rows], self.scores[rows])


def blend(first: IdEmbeds, second: IdEmbeds, weight: float) -> IdEmbeds:
    """One embedding (1, 512) between two people: spherical interpolation of means (Shoemake 1985, sec. 3.3).

    Args:
        weight: 0 is the first person, 1 the second.

    Raises:
        ConfigError: weight outside 0…1.
        FaceError: opposite embeddings, between which there is no shortest arc.
    """
    if not 0 <= weight <= 1:
        raise ConfigError("a weight in 0…1", f"{weight:g}", "Change weight.")
    a, b = first.mean.double(), second.mean.double()
    cosine = (a @ b).clamp(-1, 1)
    if cosine < -1 + 1e-6:
        raise FaceError("two people", "opposite embeddings", "Blend others.")
    angle = torch.arccos(cosine)
    if angle < 1e-6:
        mixed = torch.lerp(a, b, weight)
    else:
        mixed = (torch.sin((1 - weight) * angle) * a + torch.sin(weight * angle) * b) / torch.sin(angle)
    return IdEmbeds(torch.nn.functional.normalize(mixed, dim=0).float()[None], torch.ones(1))


def save_embeds(embeds: IdEmbeds, path: str | os.PathLike, photos: Sequence[str] = (), face_model: str = "") -> Path:
    """Write the embeddings; an existing file is replaced in one move.

    Args:
        photos: the photos' names, one per embedding, for information.
        face_model: the recogniser's name, for information.
    """
    metadata = FORMAT.metadata({"photos": json.dumps(list(photos)), "face_model": face_model})
    return write_tensors(path, {"embeds": embeds.embeds.cpu(), "scores": embeds.scores.cpu()}, metadata)


def load_embeds(path: str | os.PathLike) -> IdEmbeds:
    """Read and check the embeddings.

    Raises:
        IdentityFileError: another file, or a damaged one.
        FileNotFoundError: no such file.
    """
    with FORMAT.reading(path) as (tensors, _):
        embeds, scores = tensors["embeds"], tensors["scores"]
        shapes, count = [tuple(embeds.shape), tuple(scores.shape)], scores.numel()
        if not count or shapes != [(count, ARCFACE_WIDTH), (count,)]:
            raise IdentityFileError(f"embeds (P, {ARCFACE_WIDTH}) and scores (P,)", str(shapes), _REMEDY)
        if not (torch.isfinite(embeds).all() and torch.isfinite(scores).all() and scores.sum() > 0):
            raise IdentityFileError("finite embeds and scores", "others", _REMEDY)
        return IdEmbeds(embeds.float(), scores.float())
