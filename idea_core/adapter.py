"""ID-Adapter: gated self-attention over the text condition (arXiv 2507.11990, ID-Adapter).

The gate is that of GLIGEN (arXiv 2301.07093, eq. 8). The adapter depends on the prompt and the
identity only, not on the timestep or the layer: it has to run once per prompt.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .shapes import require_shape


class Adapter(nn.Module):
    """``y' = y + strength · beta · tanh(gamma) · self_attention([y ; fuse(F)])[:L]``.

    Args:
        d: width of the text condition.
        heads: attention heads; `d` is a multiple of it.
        beta: constant scale of the gate.
    """

    def __init__(self, d: int, heads: int = 8, beta: float = 0.4):
        super().__init__()
        self.d, self.beta = d, beta
        self.fuse = nn.Linear(2 * d, d)
        self.attention = nn.MultiheadAttention(d, heads, batch_first=True)
        self.gamma = nn.Parameter(torch.zeros(1))

    def attended(self, context: Tensor, fused: Tensor) -> Tensor:
        """`S` (B, L, d): self-attention over the text and the identity, at the text's positions."""
        require_shape("context", context, "B", "L", self.d)
        batch, length, _ = context.shape
        require_shape("fused", fused, *([batch] if fused.ndim == 3 else []), "n", 2 * self.d)
        identity = self.fuse(fused).expand(batch, -1, -1)  # (B, n, d)
        joint = torch.cat([context, identity], dim=1)  # (B, L + n, d)
        attended, _ = self.attention(joint, joint, joint, need_weights=False)
        return attended[:, :length]

    def difference(self, context: Tensor, fused: Tensor) -> Tensor:
        """`y' − y` (B, L, d) at strength 1."""
        return self.beta * torch.tanh(self.gamma) * self.attended(context, fused)

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
        return context + strength * self.difference(context, fused)
