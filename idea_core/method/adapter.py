"""ID-Adapter: gated self-attention over the text condition (arXiv 2507.11990, ID-Adapter).

The gate is that of GLIGEN (arXiv 2301.07093, eq. 8). The adapter depends on the prompt and the
identity only, not on the timestep or the layer: it has to run once per prompt.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import require_shape


class GatedAttention(nn.Module):
    """``S = self_attention([y ; g])[:L]``, behind a gate ``beta · tanh(gamma)``: all that pictures need of an Adapter.

    Args:
        d: width of the text condition.
        heads: attention heads; `d` is a multiple of it.
        beta: constant scale of the gate.
    """

    def __init__(self, d: int, heads: int = 8, beta: float = 0.4):
        super().__init__()
        self.d, self.beta = d, beta
        self.attention = nn.MultiheadAttention(d, heads, batch_first=True)
        self.gamma = nn.Parameter(torch.zeros(1))

    def attended(self, context: Tensor, grounding: Tensor) -> Tensor:
        """`S` (B, L, d): self-attention over the text and the identity, at the text's positions.

        Args:
            context: `y` (B, L, d), text condition.
            grounding: `g` (n, d), what the Adapter sees of the identity; (B, n, d) where each prompt has its own.

        Raises:
            ShapeError: either input has another shape.
        """
        require_shape("context", context, "B", "L", self.d)
        batch, length, _ = context.shape
        require_shape("grounding", grounding, *([batch] if grounding.ndim == 3 else []), "n", self.d)
        joint = torch.cat([context, grounding.expand(batch, -1, -1)], dim=1)  # (B, L + n, d)
        attended, _ = self.attention(joint, joint, joint, need_weights=False)
        return attended[:, :length]

    def difference(self, context: Tensor, grounding: Tensor) -> Tensor:
        """`y' − y` (B, L, d) at strength 1."""
        return self.beta * torch.tanh(self.gamma) * self.attended(context, grounding)


class Adapter(GatedAttention):
    """``y' = y + strength · beta · tanh(gamma) · self_attention([y ; fuse(F)])[:L]``.

    Args: those of `GatedAttention`.
    """

    def __init__(self, d: int, heads: int = 8, beta: float = 0.4):
        fuse = nn.Linear(2 * d, d)  # drawn first, so that a seed gives what it has always given
        super().__init__(d, heads, beta)
        self.fuse = fuse

    def grounding(self, fused: Tensor) -> Tensor:
        """`g = fuse(F)` (…, n, d). It depends on the person alone: a person's file holds it in place of `fuse`."""
        require_shape("fused", fused, *(["B"] if fused.ndim == 3 else []), "n", 2 * self.d)
        return self.fuse(fused)

    def applied_weights(self) -> dict[str, Tensor]:
        """State dict of the `GatedAttention`."""
        return {key: tensor for key, tensor in self.state_dict().items() if not key.startswith("fuse.")}

    def forward(self, context: Tensor, fused: Tensor, strength: float = 1.0) -> Tensor:
        """The adapted text condition `y'` (B, L, d).

        Args:
            context: `y` (B, L, d), text condition.
            fused: `F` (n, 2d), the Enhancer's output; (B, n, 2d) where each prompt has a person of its own.
            strength: factor on the difference; 0 returns `context` itself.

        Raises:
            ShapeError: either input has another shape.
        """
        if strength == 0:
            return context
        return context + strength * self.difference(context, self.grounding(fused))
