"""The regulariser that keeps the pseudo-tokens near their initialisation (Cross Initialization, arXiv 2312.15905).

Inputs of other shapes raise `ShapeError`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..shapes import require_shape

ZETA = 2e-5  # ridge of the covariance in the published settings
_FLOOR = 1e-8  # keeps the root differentiable where tokens and anchor agree


def mahalanobis_to(anchor: Tensor, zeta: float = ZETA, samples: Tensor | None = None) -> Callable[[Tensor], Tensor]:
    """The distance to `anchor` (n, d) as a function of the tokens (n, d).

    ``mean_i sqrt(max((v_i − A_i)ᵀ Σ⁻¹ (v_i − A_i), 1e-8))`` with ``Σ = cov(samples) + ζ·I``.
    Σ has the rank of the centred samples plus a multiple of I, so its inverse acts on their span (axes and
    variances from an SVD) and as 1/ζ on the rest: no d × d matrix.

    Args:
        samples: (N, d) whose spread counts; None: the anchor's own rows, as published.
    """
    require_shape("anchor", anchor, "n", "d")
    samples = anchor if samples is None else samples
    require_shape("samples", samples, "N", anchor.shape[1])
    centred = samples - samples.mean(0, keepdim=True)
    _, singular, axes = torch.linalg.svd(centred, full_matrices=False)  # (r,), (r, d)
    variance = singular.square() / max(len(samples) - 1, 1) + zeta

    def distance(tokens: Tensor) -> Tensor:
        require_shape("tokens", tokens, *anchor.shape)
        offset = tokens - anchor
        along = offset @ axes.T  # (n, r)
        rest = offset - along @ axes
        squared = (along.square() / variance).sum(-1) + rest.square().sum(-1) / zeta
        return squared.clamp(min=_FLOOR).sqrt().mean()

    return distance


def squared_to(anchor: Tensor) -> Callable[[Tensor], Tensor]:
    """The squared Euclidean distance to `anchor` (n, d), summed over d, a mean over n (arXiv 2312.15905)."""
    require_shape("anchor", anchor, "n", "d")
    return lambda tokens: (tokens - anchor).square().sum(-1).mean()


def mahalanobis(tokens: Tensor, anchor: Tensor, zeta: float = ZETA) -> Tensor:
    """Mahalanobis distance of the pseudo-tokens (n, d) to their anchor (n, d), a scalar."""
    return mahalanobis_to(anchor, zeta)(tokens)
