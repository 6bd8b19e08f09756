"""All that is trained for one person (arXiv 2507.11990): pseudo-tokens, Enhancer, Adapter, K/V deltas."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..diffusion.backbone import TextCondition
from ..identity.base_ref import BaseModelRef
from ..identity.identity import Identity
from ..method.anchor import ROWS, Anchor, NamesBasis
from ..method.kv import KVDeltas
from ..method.modules import Adapter, Enhancer
from .config import TrainConfig

LR_WIDTH = 1024  # width of Enhancer and Adapter for which the learning rates of Enhancer and Adapter are given

Distance = Callable[[Tensor], Tensor]
"""Pseudo-tokens (n, d_enc) → their distance to where they started, a scalar."""


class FreeTokens(nn.Module):
    """Pseudo-tokens that move freely from their start."""

    def __init__(self, start: Anchor):
        super().__init__()
        self.vectors = nn.ParameterDict({encoder: part.clone() for encoder, part in start.items()})

    def forward(self) -> dict[str, Tensor]:
        """Text encoder, or `ROWS` → pseudo-tokens (n, d_enc)."""
        return dict(self.vectors.items())


class AxisTokens(nn.Module):
    """Pseudo-tokens ``mean + coefficients · axes`` along the principal axes of names (arXiv 2306.00926)."""

    def __init__(self, basis: NamesBasis):
        super().__init__()
        self.coefficients = nn.ParameterDict()
        for encoder, axes in basis.axes.items():
            self.register_buffer(f"mean_{encoder}", basis.mean[encoder].clone(), persistent=False)
            self.register_buffer(f"axes_{encoder}", axes.clone(), persistent=False)
            self.coefficients[encoder] = nn.Parameter(torch.zeros(axes.shape[:2]))

    def forward(self) -> dict[str, Tensor]:
        """Text encoder, or `ROWS` → pseudo-tokens (n, d_enc)."""
        return {
            encoder: self.get_buffer(f"mean_{encoder}")
            + torch.einsum("nk,nkd->nd", coefficients, self.get_buffer(f"axes_{encoder}"))
            for encoder, coefficients in self.coefficients.items()
        }


class PersonModel(nn.Module):
    """Everything that is trained for one person, in float32.

    Args:
        pseudo_tokens: by text encoder; or rows of the text condition alone, under `ROWS`.
        anchor: `A` (n, d).
        id_embeds: `a` (512,), L2-normalised.
        modules: Enhancer and Adapter; None: only the pseudo-tokens are trained.
        distances: key of the pseudo-tokens → the regulariser's distance.
        read: what the text encoders read in place of rows; None: the pseudo-tokens.
    """

    anchor: Tensor
    id_embeds: Tensor
    enhancer: Enhancer | None
    adapter: Adapter | None

    def __init__(
        self,
        pseudo_tokens: FreeTokens | AxisTokens,
        anchor: Tensor,
        id_embeds: Tensor,
        modules: tuple[Enhancer, Adapter] | None,
        kv: KVDeltas,
        distances: Mapping[str, Distance],
        read: Anchor | None = None,
    ):
        super().__init__()
        self.pseudo_tokens, self._read = pseudo_tokens, read
        self.enhancer, self.adapter = modules or (None, None)
        self.register_buffer("anchor", anchor.clone())
        self.register_buffer("id_embeds", id_embeds.float().clone())  # an inference tensor cannot be trained with
        self.kv, self._distances = kv, distances

    @property
    def tokens(self) -> dict[str, Tensor]:
        """Text encoder → what it reads as the person (n, d_enc)."""
        return self.pseudo_tokens() if self._read is None else dict(self._read)

    @property
    def rows(self) -> Tensor | None:
        """The person's own rows of the text condition (n, d); None: the text encoders give them."""
        return None if self._read is None else self.pseudo_tokens()[ROWS]

    def fused(self) -> Tensor | None:
        """`F` (n, 2w); None without Enhancer and Adapter."""
        if self.enhancer is None or self.adapter is None:
            return None
        return self.enhancer(self.id_embeds, self.adapter.narrow(self.anchor))

    def grounding(self) -> Tensor | None:
        """`fuse(F)` (n, w), the Adapter's input for this person; None without an Adapter."""
        fused = self.fused()
        return None if fused is None or self.adapter is None else self.adapter.grounding(fused)

    def adapt(self, condition: TextCondition) -> TextCondition:
        """The text condition with this person's rows, as the Adapter changes it."""
        rows, fused = self.rows, self.fused()
        if rows is not None:
            condition = condition.with_rows(rows)
        if fused is None or self.adapter is None:
            return condition
        return condition._replace(context=self.adapter(condition.context, fused))

    def regularizer(self) -> Tensor:
        """Distance of the pseudo-tokens to where they started, summed over their keys, a scalar."""
        tokens = self.pseudo_tokens()
        return torch.stack([distance(tokens[encoder]) for encoder, distance in self._distances.items()]).sum()

    def weights(self) -> dict[str, Tensor]:
        """All that is trained, with the anchor and the face, by name, detached."""
        return self.state_dict() | self.kv.state_dict()

    def identity(self, name: str, base_ref: BaseModelRef, kv_scope: str) -> Identity | None:
        """The person in half precision on the CPU; None if a trained value is not finite, or too large for it."""
        grounding = self.grounding()
        trained = [*self.parameters(), *self.kv.parameters(), *([] if grounding is None else [grounding])]
        if not all(tensor.half().isfinite().all() for tensor in trained):
            return None
        return Identity(
            name=name,
            base_ref=base_ref,
            kv_scope=kv_scope,
            tokens=self.tokens,
            rows=self.rows,
            anchor=self.anchor,
            grounding=grounding,
            id_embeds=self.id_embeds,
            adapter={} if self.adapter is None else self.adapter.applied_weights(),
            kv=self.kv.state_dict(),
        ).to(torch.float16)

    def parameter_groups(self, config: TrainConfig, kv_scale: float = 1.0) -> list[dict[str, Any]]:
        """AdamW's groups, each with its own learning rate. An Enhancer whose rate is 0 gets no gradients any more.

        Args:
            kv_scale: factor of the base model on the rate of keys and values.
        """
        scale = LR_WIDTH / (self.anchor.shape[1] if self.adapter is None else self.adapter.width)
        enhancer_lr = config.adapter_lr if config.enhancer_lr is None else config.enhancer_lr
        token_lr = config.axes_lr if isinstance(self.pseudo_tokens, AxisTokens) else config.token_lr
        parts: list[tuple[nn.Module | KVDeltas, float]] = [
            (self.pseudo_tokens, token_lr),
            (self.kv, config.kv_lr * kv_scale),
        ]
        if self.enhancer is not None and self.adapter is not None:
            self.enhancer.requires_grad_(enhancer_lr > 0)
            parts += [(self.enhancer, enhancer_lr * scale), (self.adapter, config.adapter_lr * scale)]
        return [{"params": list(part.parameters()), "lr": lr} for part, lr in parts]
