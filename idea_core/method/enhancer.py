"""ID-Enhancer: fuses the ArcFace embedding with the textual ID anchor (arXiv 2507.11990, ID-Enhancer)."""

from __future__ import annotations

from torch import Tensor, nn

from ..errors import ShapeError, require_shape

ARCFACE_WIDTH = 512


class Enhancer(nn.Module):
    """Cross attention from the face to the anchor: ``F = out(attention(q(X), kv(A), kv(A)))``.

    Args:
        d: width of the text condition.
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

        Raises:
            ShapeError: either input has another shape.
        """
        if id_embeds.shape[-1:] != (ARCFACE_WIDTH,) or id_embeds.ndim > 2:
            expected = f"id_embeds of shape ({ARCFACE_WIDTH}) or (B, {ARCFACE_WIDTH})"
            raise ShapeError(expected, f"{tuple(id_embeds.shape)}", "Pass a tensor of that shape.")
        require_shape("anchor", anchor, self.n, self.d)
        face = self.expand(id_embeds).unsqueeze(-2).expand(*id_embeds.shape[:-1], self.n, -1)  # (…, n, d)
        key_value = self.key_value(anchor).expand_as(face)
        attended, _ = self.attention(self.query(face), key_value, key_value, need_weights=False)
        return self.out(face + attended if self.residual else attended)
