"""ID_EMBEDS: the ArcFace embeddings of a person's photos, their mean, and people between people."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ConfigError, FaceError

SAME_PERSON = 0.25  # cosine of two ArcFace embeddings, below which they are hardly one person's


@dataclass(frozen=True, eq=False, repr=False)
class IdEmbeds:
    """A person's face embeddings.

    Attributes:
        embeds: (P, 512), one L2-normalised embedding a photo.
        scores: (P,) detection scores.
    """

    embeds: Tensor
    scores: Tensor

    def __repr__(self) -> str:  # without tensors: it stands in the error reports that users send to others
        return f"IdEmbeds(photos={len(self.embeds)})"

    @property
    def mean(self) -> Tensor:
        """`a` (512,): mean weighted by detection score, L2-normalised."""
        return torch.nn.functional.normalize((self.embeds * self.scores[:, None]).sum(0), dim=0)

    def outliers(self) -> Tensor:
        """(P,) bool: the photos that look like another person than more than half of the others do."""
        unlike = self.embeds @ self.embeds.T < SAME_PERSON
        unlike.fill_diagonal_(False)
        return unlike.sum(1) > (len(unlike) - 1) / 2

    def only(self, rows: Tensor) -> IdEmbeds:
        """The embeddings in these rows, (P,) bool."""
        return IdEmbeds(self.embeds[rows], self.scores[rows])


def blend(first: IdEmbeds, second: IdEmbeds, weight: float) -> IdEmbeds:
    """A person between two: spherical interpolation of their means (Shoemake 1985, sec. 3.3).

    Args:
        weight: 0 is the first, 1 the second.

    Returns:
        One embedding, (1, 512).

    Raises:
        ConfigError: weight outside 0…1.
        FaceError: opposite embeddings, between which there is no shortest way.
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
