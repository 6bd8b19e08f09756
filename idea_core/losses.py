"""The regulariser that keeps the pseudo-tokens near their initialisation (Cross Initialization, arXiv 2312.15905)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .shapes import require_shape

ZETA = 2e-5  # ridge of the covariance in the published settings
_FLOOR = 1e-8  # keeps the root differentiable where tokens and anchor agree


def mahalanobis_to(anchor: Tensor, zeta: float = ZETA) -> Callable[[Tensor], Tensor]:
    """The distance to `anchor` (n, d) as a function of the tokens (n, d).

    ``mean_i sqrt(max((v_i − A_i)ᵀ Σ⁻¹ (v_i − A_i), 1e-8))`` with ``Σ = cov(rows of A) + ζ·I``.
    Σ has rank n − 1 plus a multiple of I, so its inverse acts on the span of the centred rows
    (axes and variances from an SVD of an (n, d) matrix) and as 1/ζ on the rest: no d × d matrix.
    """
    require_shape("anchor", anchor, "n", "d")
    n = anchor.shape[0]
    centred = anchor - anchor.mean(0, keepdim=True)
    _, singular, axes = torch.linalg.svd(centred, full_matrices=False)  # (n,), (n, d)
    variance = singular.square() / max(n - 1, 1) + zeta

    def distance(tokens: Tensor) -> Tensor:
        require_shape("tokens", tokens, *anchor.shape)
        offset = tokens - anchor
        along = offset @ axes.T  # (n, n)
        rest = offset - along @ axes
        squared = (along.square() / variance).sum(-1) + rest.square().sum(-1) / zeta
        return squared.clamp(min=_FLOOR).sqrt().mean()

    return distance


def mahalanobis(tokens: Tensor, anchor: Tensor, zeta: float = ZETA) -> Tensor:
    """Mahalanobis distance of the pseudo-tokens (n, d) to their anchor (n, d), a scalar.

    Raises:
        ShapeError: the shapes differ or are not two-dimensional.
    """
    return mahalanobis_to(anchor, zeta)(tokens)
