"""The network of a pretrained ID-Enhancer: face embeddings → pseudo-tokens and the Adapter's input."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..diffusion.backbone import Backbone, Prompt, TextCondition
from ..errors import ConfigError
from ..method.anchor import ROWS, Anchor
from ..method.modules import ARCFACE_WIDTH, Adapter, Enhancer

HIDDEN, BLOCKS = 512, 8  # of the token predictor
OPEN_GATE = 0.5  # γ at the start
_READ = "read_"  # prefix of a text encoder's key
UNIT_VARIANCE = ARCFACE_WIDTH**0.5  # a normalised embedding's entries are tiny; layers want them near 1


class TokenPredictor(nn.Module):
    """Face embeddings → distance of a person's pseudo-tokens from the mean name: a residual network, zero at first.

    With as many weights, a deeper network generalises better to new people than a shallow one (docs/evidence.md).

    Args:
        width: width of all tokens of a person together.
    """

    def __init__(self, width: int):
        super().__init__()
        self.expand = nn.Linear(ARCFACE_WIDTH, HIDDEN)
        self.norms = nn.ModuleList(nn.LayerNorm(HIDDEN) for _ in range(BLOCKS))
        self.inner = nn.ModuleList(nn.Linear(HIDDEN, HIDDEN) for _ in range(BLOCKS))
        self.outer = nn.ModuleList(nn.Linear(HIDDEN, HIDDEN) for _ in range(BLOCKS))
        self.out = nn.Linear(HIDDEN, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, faces: Tensor, dropout: Tensor | None = None) -> Tensor:
        """(B, width) of faces (B, 512), with entries near 1; `dropout` as in `EnhancerModel.tokens`."""
        hidden = self.expand(faces)
        for block, (norm, inner, outer) in enumerate(zip(self.norms, self.inner, self.outer)):
            active = functional.silu(inner(norm(hidden)))
            hidden = hidden + outer(active if dropout is None else active * dropout[:, block])
        return self.out(hidden)


class EnhancerModel(nn.Module):
    """Face embeddings → pseudo-tokens and the Adapter's input: token predictor, Enhancer, Adapter.

    The tokens start at the mean of names and move on the scale on which names differ. They do not start at the anchor:
    it is an encoder's output, and far longer than any name's token.

    For a language model, the pseudo-tokens are the person's own rows of the text condition, and it reads the mean name.

    Args:
        anchor: `A` of each text encoder, (n, d_enc); or `ROWS` → (n, d).
        start, scale: `mean_name` of the names, in each text encoder (n, d_enc); or `mean_rows`, under `ROWS`.
        heads: attention heads of Enhancer and Adapter.
        beta: scale of the Adapter's gate.
        width: at which Enhancer and Adapter work; None: that of the pseudo-tokens.
        read: what the text encoders read in place of rows, (n, d_enc); None: the pseudo-tokens.
    """

    anchor: Tensor  # (n, d), as are the next two
    start: Tensor
    scale: Tensor

    def __init__(
        self,
        anchor: Anchor,
        start: Anchor,
        scale: Anchor,
        heads: int = 8,
        beta: float = 0.4,
        width: int | None = None,
        read: Anchor | None = None,
    ):
        super().__init__()
        self.widths = {encoder: part.shape[1] for encoder, part in anchor.items()}
        d, n = sum(self.widths.values()), next(iter(anchor.values())).shape[0]
        inner = width or d
        if inner % heads:
            raise ConfigError(f"heads to divide the width {inner}", str(heads), "Change heads.")
        for name, parts in (("anchor", anchor), ("start", start), ("scale", scale)):
            self.register_buffer(name, torch.cat([part.float() for part in parts.values()], dim=-1))
        self.predictor = TokenPredictor(n * d)
        self._readers = tuple(read or {})
        for encoder, part in (read or {}).items():
            self.register_buffer(f"{_READ}{encoder}", part.float())
        self.enhancer = Enhancer(inner, n, heads, residual=True)
        self.adapter = Adapter(d, heads, beta, inner)
        self.adapter.open_without_effect(OPEN_GATE)  # every face starts at the mean name

    @property
    def num_tokens(self) -> int:
        return self.anchor.shape[0]

    @property
    def read(self) -> dict[str, Tensor] | None:
        """Text encoder → what it reads as the person (n, d_enc), where pseudo-tokens are rows; None elsewhere."""
        return {encoder: self.get_buffer(f"{_READ}{encoder}") for encoder in self._readers} or None

    def tokens(self, id_embeds: Tensor, dropout: Tensor | None = None) -> dict[str, Tensor]:
        """Text encoder, or `ROWS` → pseudo-tokens (B, n, d_enc) of faces (B, 512), L2-normalised.

        Args:
            dropout: (B, BLOCKS, HIDDEN), factors on the predictor's hidden values; None outside of training.
        """
        moved = self.predictor(id_embeds * UNIT_VARIANCE, dropout).unflatten(-1, self.start.shape)
        tokens = self.start + self.scale * moved
        return dict(zip(self.widths, tokens.split(list(self.widths.values()), dim=-1)))

    def fused(self, id_embeds: Tensor) -> Tensor:
        """`F` (B, n, 2w) of faces (B, 512)."""
        return self.enhancer(id_embeds * UNIT_VARIANCE, self.adapter.narrow(self.anchor))


def face_condition(
    backbone: Backbone, model: EnhancerModel, captions: Sequence[Prompt], faces: Tensor, dropout: Tensor | None = None
) -> TextCondition:
    """Text condition of captions with the people of faces (B, 512); `dropout` as in `EnhancerModel.tokens`.

    The captions are of one length, unless the base model pads them.
    """
    tokens, read = model.tokens(faces, dropout), model.read
    if read is None:
        condition = backbone.encode(captions, {encoder: list(part) for encoder, part in tokens.items()})
    else:
        plain = backbone.encode(captions, {encoder: [part] * len(captions) for encoder, part in read.items()})
        condition = plain.with_rows(tokens[ROWS])
    return condition._replace(context=model.adapter(condition.context, model.fused(faces)))
