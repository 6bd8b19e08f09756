"""All that is trained for one person (arXiv 2507.11990): pseudo-tokens, Enhancer, Adapter, K/V deltas."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..diffusion.backbone import Backbone, TextCondition
from ..errors import ConfigError
from ..families import BASE_MODELS
from ..method.adapter import Adapter
from ..method.anchor import Anchor, NamesBasis
from ..method.enhancer import Enhancer
from ..method.kv import KVDeltas
from .config import TrainConfig

LR_WIDTH = 1024  # of the text condition, at which the rates of Enhancer and Adapter are given


class PersonModel(nn.Module):
    """Everything that is trained for one person, on the backbone's device in float32.

    Raises:
        ConfigError: a number of heads that does not divide the width.
    """

    def __init__(self, backbone: Backbone, anchor: Anchor, id_embeds: Tensor, config: TrainConfig):
        super().__init__()
        self._base_model = backbone.base_model
        d = BASE_MODELS[backbone.base_model].width
        if d % config.heads:
            raise ConfigError(f"heads to divide the width {d}", str(config.heads), "Change heads.")
        self.enhancer, self.adapter = _seeded(d, config) if config.has_adapter else (None, None)
        self.tokens = nn.ParameterDict({encoder: part.clone() for encoder, part in anchor.items()})
        self.register_buffer("anchor", torch.cat(list(anchor.values()), dim=-1))  # (n, d)
        self.register_buffer("id_embeds", id_embeds.float().clone())  # (512,); it may have been an inference tensor
        self.to(backbone.device)
        generator = torch.Generator().manual_seed(config.seed)
        shapes = backbone.kv_shapes if config.kv_lr > 0 else {}
        self.kv = KVDeltas(shapes, config.kv_rank, generator, backbone.device)

    def fused(self) -> Tensor | None:
        """`F` (n, 2d); None without Enhancer and Adapter."""
        return None if self.enhancer is None else self.enhancer(self.id_embeds, self.anchor)

    def adapt(self, condition: TextCondition) -> TextCondition:
        if self.adapter is None:
            return condition
        return condition._replace(context=self.adapter(condition.context, self.fused()))

    def parameter_groups(self, config: TrainConfig) -> list[dict]:
        """AdamW's groups, each with a rate of its own."""
        scale = LR_WIDTH / self.anchor.shape[1]
        enhancer_lr = config.adapter_lr if config.enhancer_lr is None else config.enhancer_lr
        parts = [(self.tokens.values(), config.token_lr), (self.kv.parameters(), config.kv_lr)]
        if self.adapter is not None:
            parts.append((self.enhancer.parameters(), enhancer_lr * scale))
            parts.append((self.adapter.parameters(), config.adapter_lr * scale))
        return [{"params": list(parameters), "lr": rate} for parameters, rate in parts]


class NamesPerson(PersonModel):
    """A person whose pseudo-tokens are ``mean + coefficients · axes`` of celebrities' names (arXiv 2306.00926)."""

    def __init__(self, backbone: Backbone, anchor: Anchor, id_embeds: Tensor, config: TrainConfig, basis: NamesBasis):
        super().__init__(backbone, anchor, id_embeds, config)
        del self.tokens
        self.coefficients = nn.ParameterDict()
        for encoder, axes in basis.axes.items():
            self.register_buffer(f"mean_{encoder}", basis.mean[encoder].clone(), persistent=False)
            self.register_buffer(f"axes_{encoder}", axes.clone(), persistent=False)
            self.coefficients[encoder] = nn.Parameter(torch.zeros(axes.shape[:2]))
        self.to(backbone.device)

    @property
    def tokens(self) -> dict[str, Tensor]:
        """Text encoder → pseudo-tokens (n, d_enc)."""
        return {
            encoder: getattr(self, f"mean_{encoder}")
            + torch.einsum("nk,nkd->nd", self.coefficients[encoder], getattr(self, f"axes_{encoder}"))
            for encoder in BASE_MODELS[self._base_model].encoders
        }

    def parameter_groups(self, config: TrainConfig) -> list[dict]:
        _, *others = super().parameter_groups(config)
        return [{"params": list(self.coefficients.values()), "lr": config.axes_lr}, *others]


BuildPerson = Callable[[Backbone, Anchor, Tensor, TrainConfig, NamesBasis | None], PersonModel]
"""Makes what a `Trainer` trains, of the anchor, the face, and the names' basis where tokens move along its axes."""


def build_person(
    backbone: Backbone, anchor: Anchor, id_embeds: Tensor, config: TrainConfig, basis: NamesBasis | None
) -> PersonModel:
    """A person who starts at the basis' mean, or without a basis at the anchor."""
    if basis is None:
        return PersonModel(backbone, anchor, id_embeds, config)
    return NamesPerson(backbone, anchor, id_embeds, config, basis)


def _seeded(d: int, config: TrainConfig) -> tuple[Enhancer, Adapter]:
    """Enhancer and Adapter from the training's seed, at first without effect on the text condition."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(config.seed)
        enhancer, adapter = Enhancer(d, config.num_tokens, config.heads), Adapter(d, config.heads, config.beta)
        if config.gate_init:
            adapter.gamma.fill_(config.gate_init)
            adapter.attention.out_proj.weight.zero_()
            adapter.attention.out_proj.bias.zero_()
    return enhancer, adapter
