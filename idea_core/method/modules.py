"""The paper's two modules: ID-Enhancer and ID-Adapter (arXiv 2507.11990, sections of these names).

The Adapter's gate is that of GLIGEN (arXiv 2301.07093, eq. 8). It depends on the prompt and the identity only, not on
the timestep or the layer: it has to run once per prompt. Inputs of
other shapes raise `ShapeError`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import ShapeError, require_shape

ARCFACE_WIDTH = 512


class Enhancer(nn.Module):
    """Cross attention from the face to the anchor: ``F = out(attention(q(X), kv(A), kv(A)))``.

    Args:
        d: width of the text condition, or the Adapter's own width.
        n: pseudo-tokens per identity.
        heads: attention heads; `d` is a multiple of it.
        residual: let the face pass around the attention, ``F = out(X + attention(…))``. As published, all that F can
            say of a face are the weights of n anchor rows in each head.
    """

    def __init__(self, d: int, n: int = 2, heads: int = 8, residual: bool = False):
        super().__init__()
        self.d, self.n, self.residual = d, n, residual
        self.expand = nn.Linear(ARCFACE_WIDTH, d)
        self.query = nn.Linear(d, d)
        self.key_value = nn.Linear(d, d)
        self.attention = nn.MultiheadAttention(d, heads, batch_first=True)
        self.out = nn.Linear(d, 2 * d)

    def forward(self, id_embeds: Tensor, anchor: Tensor) -> Tensor:
        """Enhanced identity embedding `F` (n, 2d), or (B, n, 2d) of several people.

        Args:
            id_embeds: `a` (512,) or (B, 512), L2-normalised identity embedding.
            anchor: `A` (n, d), textual ID anchor.
        """
        if id_embeds.shape[-1:] != (ARCFACE_WIDTH,) or id_embeds.ndim > 2:
            expected = f"id_embeds of shape ({ARCFACE_WIDTH}) or (B, {ARCFACE_WIDTH})"
            raise ShapeError(expected, f"{tuple(id_embeds.shape)}", "Pass a tensor of that shape.")
        require_shape("anchor", anchor, self.n, self.d)
        face = self.expand(id_embeds).unsqueeze(-2).expand(*id_embeds.shape[:-1], self.n, -1)  # (…, n, d)
        key_value = self.key_value(anchor).expand_as(face)
        attended, _ = self.attention(self.query(face), key_value, key_value, need_weights=False)
        return self.out(face + attended if self.residual else attended)


class GatedAttention(nn.Module):
    """``S = self_attention([y ; g])[:L]``, behind a gate ``beta · tanh(gamma)``: all that images need of an Adapter.

    At a width of its own, it works between two projections: ``y' − y = |y| · out(gate · S)``, where `S` sees
    ``in(y / |y|)``, and `|y|` is the root mean square of a row. Rows of language models differ a hundredfold in size.

    Args:
        d: width of the text condition.
        heads: attention heads; `width` is a multiple of it.
        beta: constant scale of the gate.
        width: of the attention, `w` below; None: d.
    """

    def __init__(self, d: int, heads: int = 8, beta: float = 0.4, width: int | None = None):
        super().__init__()
        self.d, self.beta, self.width = d, beta, width or d
        self.attention = nn.MultiheadAttention(self.width, heads, batch_first=True)
        self.gamma = nn.Parameter(torch.zeros(1))
        projected = self.width != d
        self.into = nn.Linear(d, self.width) if projected else None
        self.out = nn.Linear(self.width, d) if projected else None

    def narrow(self, rows: Tensor) -> Tensor:
        """Rows (…, d) of text as the attention sees them (…, w)."""
        return rows if self.into is None else self.into(rows / _size(rows))

    def attended(self, context: Tensor, grounding: Tensor) -> Tensor:
        """`S` (B, L, w): self-attention over the text and the identity, at the text's positions.

        Args:
            context: `y` (B, L, d), text condition.
            grounding: `g` (n, w), what the Adapter sees of the identity; (B, n, w) where each prompt has its own.
        """
        require_shape("context", context, "B", "L", self.d)
        batch, length, _ = context.shape
        require_shape("grounding", grounding, *([batch] if grounding.ndim == 3 else []), "n", self.width)
        joint = torch.cat([self.narrow(context), grounding.expand(batch, -1, -1)], dim=1)  # (B, L + n, w)
        attended, _ = self.attention(joint, joint, joint, need_weights=False)
        return attended[:, :length]

    def difference(self, context: Tensor, grounding: Tensor) -> Tensor:
        """`y' − y` (B, L, d) at strength 1."""
        gated = self.beta * torch.tanh(self.gamma) * self.attended(context, grounding)
        return gated if self.out is None else _size(context) * self.out(gated)

    @torch.no_grad()
    def open_without_effect(self, gamma: float) -> None:
        """Open the gate before an output of zeros, from which all parts learn at once."""
        self.gamma.fill_(gamma)
        last = self.attention.out_proj if self.out is None else self.out
        last.weight.zero_()
        last.bias.zero_()


class Adapter(GatedAttention):
    """``y' = y + strength · beta · tanh(gamma) · self_attention([y ; fuse(F)])[:L]``."""

    def __init__(self, d: int, heads: int = 8, beta: float = 0.4, width: int | None = None):
        inner = width or d
        fuse = nn.Linear(2 * inner, inner)  # drawn before the attention: the random draws of a seed keep their order
        super().__init__(d, heads, beta, width)
        self.fuse = fuse

    def grounding(self, fused: Tensor) -> Tensor:
        """`g = fuse(F)` (…, n, w). It depends on the person alone: a person's file holds it in place of `fuse`."""
        require_shape("fused", fused, *(["B"] if fused.ndim == 3 else []), "n", 2 * self.width)
        return self.fuse(fused)

    def applied_weights(self) -> dict[str, Tensor]:
        """State dict of the `GatedAttention`."""
        return {key: tensor for key, tensor in self.state_dict().items() if not key.startswith("fuse.")}

    def forward(self, context: Tensor, fused: Tensor, strength: float = 1.0) -> Tensor:
        """The adapted text condition `y'` (B, L, d).

        Args:
            context: `y` (B, L, d), text condition.
            fused: `F` (n, 2w), the Enhancer's output; (B, n, 2w) where each prompt has a person of its own.
            strength: factor on the difference; 0 returns `context` itself.
        """
        if strength == 0:
            return context
        return context + strength * self.difference(context, self.grounding(fused))


def _size(rows: Tensor) -> Tensor:
    """Root mean square (…, 1) of rows (…, d)."""
    return rows.square().mean(-1, keepdim=True).sqrt().clamp(min=1e-6)
