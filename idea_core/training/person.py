"""All that is trained for one person (arXiv 2507.11990): pseudo-tokens, Enhancer, Adapter, K/V deltas."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..diffusion.backbone import Backbone, TextCondition
from ..errors import ConfigError
from ..families import BASE_MODELS
from ..method.anchor import Anchor, NamesBasis, cross_initialise, names_basis, spread_of_names
from ..method.kv import KVDeltas
from ..method.losses import mahalanobis_to, squared_to
from ..method.modules import Adapter, Enhancer
from .config import TrainConfig

LR_WIDTH = 1024  # width of the text condition for which the learning rates of Enhancer and Adapter are given
AXIS_SCALE = 0.1  # of the names' axes around a prediction, which is closer to the person than the mean name

Distance = Callable[[Tensor], Tensor]
"""Pseudo-tokens (n, d_enc) → their distance to where they started, a scalar."""


class FreeTokens(nn.Module):
    """Pseudo-tokens that move freely from their start."""

    def __init__(self, start: Anchor):
        super().__init__()
        self.vectors = nn.ParameterDict({encoder: part.clone() for encoder, part in start.items()})

    def forward(self) -> dict[str, Tensor]:
        """Text encoder → pseudo-tokens (n, d_enc)."""
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
        """Text encoder → pseudo-tokens (n, d_enc)."""
        return {
            encoder: self.get_buffer(f"mean_{encoder}")
            + torch.einsum("nk,nkd->nd", coefficients, self.get_buffer(f"axes_{encoder}"))
            for encoder, coefficients in self.coefficients.items()
        }


class PersonModel(nn.Module):
    """Everything that is trained for one person, in float32.

    Args:
        anchor: `A` (n, d).
        id_embeds: `a` (512,), L2-normalised.
        modules: Enhancer and Adapter; None: only the pseudo-tokens are trained.
        distances: text encoder → the regulariser's distance.
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
    ):
        super().__init__()
        self.pseudo_tokens = pseudo_tokens
        self.enhancer, self.adapter = modules or (None, None)
        self.register_buffer("anchor", anchor.clone())
        self.register_buffer("id_embeds", id_embeds.float().clone())  # an inference tensor cannot be trained with
        self.kv, self._distances = kv, distances

    @property
    def tokens(self) -> dict[str, Tensor]:
        """Text encoder → pseudo-tokens (n, d_enc)."""
        return self.pseudo_tokens()

    def fused(self) -> Tensor | None:
        """`F` (n, 2d); None without Enhancer and Adapter."""
        return None if self.enhancer is None else self.enhancer(self.id_embeds, self.anchor)

    def grounding(self) -> Tensor | None:
        """`fuse(F)` (n, d), the Adapter's input for this person; None without an Adapter."""
        fused = self.fused()
        return None if fused is None or self.adapter is None else self.adapter.grounding(fused)

    def adapt(self, condition: TextCondition) -> TextCondition:
        """The text condition as the Adapter changes it for this person."""
        fused = self.fused()
        if fused is None or self.adapter is None:
            return condition
        return condition._replace(context=self.adapter(condition.context, fused))

    def regularizer(self) -> Tensor:
        """Distance of the pseudo-tokens to where they started, summed over the text encoders, a scalar."""
        tokens = self.tokens
        return torch.stack([distance(tokens[encoder]) for encoder, distance in self._distances.items()]).sum()

    def weights(self) -> dict[str, Tensor]:
        """All that is trained, with the anchor and the face, by name, detached."""
        return self.state_dict() | self.kv.state_dict()

    def parameter_groups(self, config: TrainConfig) -> list[dict[str, Any]]:
        """AdamW's groups, each with its own learning rate."""
        scale = LR_WIDTH / self.anchor.shape[1]
        enhancer_lr = config.adapter_lr if config.enhancer_lr is None else config.enhancer_lr
        token_lr = config.axes_lr if isinstance(self.pseudo_tokens, AxisTokens) else config.token_lr
        parts: list[tuple[nn.Module | KVDeltas, float]] = [(self.pseudo_tokens, token_lr), (self.kv, config.kv_lr)]
        if self.enhancer is not None and self.adapter is not None:
            parts += [(self.enhancer, enhancer_lr * scale), (self.adapter, config.adapter_lr * scale)]
        return [{"params": list(part.parameters()), "lr": lr} for part, lr in parts]


class Start(Protocol):
    """Where a person's training starts: at names (`NamesStart`), or at the prediction of a `PretrainedEnhancer`."""

    def configure(self, config: TrainConfig) -> TrainConfig:
        """The settings, as this start needs them."""
        return config

    def build_person(
        self, backbone: Backbone, id_embeds: Tensor, config: TrainConfig, names: Sequence[str]
    ) -> PersonModel:
        """The untrained person, on the backbone's device.

        Args:
            id_embeds: `a` (512,), L2-normalised.
            names: names of well-known people, or a single phrase.
        """
        return build_person(backbone, id_embeds, config, names)


@dataclass(frozen=True)
class NamesStart(Start):
    """A start at names of well-known people, with an Enhancer and an Adapter that change nothing yet."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """The prediction of a pretrained Enhancer for a person.

    Attributes:
        tokens: text encoder → pseudo-tokens (n, d_enc).
        anchor: `A` (n, d) of its training.
        modules: its Enhancer and Adapter.
    """

    tokens: Anchor
    anchor: Tensor
    modules: tuple[Enhancer, Adapter]


def build_person(
    backbone: Backbone,
    id_embeds: Tensor,
    config: TrainConfig,
    names: Sequence[str],
    prediction: Prediction | None = None,
) -> PersonModel:
    """A person who starts at a prediction, or at the names without one; arguments as in `Start.build_person`.

    Raises:
        ConfigError: names or heads that do not fit the base model.
    """
    d = BASE_MODELS[backbone.base_model].width
    if d % config.heads:
        raise ConfigError(f"heads to divide the width {d}", str(config.heads), "Change heads.")
    anchor = cross_initialise(backbone, names, config.num_tokens)
    basis = names_basis(backbone, names, config.num_tokens, config.axes) if config.start == "names" else None
    if prediction and basis:
        scaled = {encoder: AXIS_SCALE * axes for encoder, axes in basis.axes.items()}
        basis = NamesBasis(prediction.tokens, scaled)
    pseudo_tokens = AxisTokens(basis) if basis else FreeTokens(prediction.tokens if prediction else anchor)
    pseudo_tokens.to(backbone.device)
    modules = (prediction.modules if prediction else _seeded(d, config)) if config.has_adapter else None
    kv_shapes = backbone.kv_shapes if config.kv_lr > 0 else {}
    kv_rank = BASE_MODELS[backbone.base_model].kv_rank if config.kv_rank is None else config.kv_rank
    return PersonModel(
        pseudo_tokens,
        prediction.anchor if prediction else torch.cat(list(anchor.values()), dim=-1),
        id_embeds,
        modules,
        KVDeltas(kv_shapes, kv_rank, torch.Generator().manual_seed(config.seed), backbone.device),
        _distances(backbone, pseudo_tokens(), anchor, names, config),
    ).to(backbone.device)


def _distances(
    backbone: Backbone, start: Anchor, anchor: Anchor, names: Sequence[str], config: TrainConfig
) -> dict[str, Distance]:
    """Text encoder → the regulariser's distance of its tokens to where they start."""
    start = {encoder: tokens.detach().clone() for encoder, tokens in start.items()}
    if config.regularizer == "l2":
        return {encoder: squared_to(tokens) for encoder, tokens in start.items()}
    spread = spread_of_names(backbone, names, config.num_tokens) if config.regularizer == "names" else anchor
    return {encoder: mahalanobis_to(tokens, config.zeta, spread[encoder]) for encoder, tokens in start.items()}


def _seeded(d: int, config: TrainConfig) -> tuple[Enhancer, Adapter]:
    """Enhancer and Adapter from the training's seed, without effect on the text condition yet."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(config.seed)
        enhancer, adapter = Enhancer(d, config.num_tokens, config.heads), Adapter(d, config.heads, config.beta)
        if config.gate_init:
            adapter.gamma.fill_(config.gate_init)
            adapter.attention.out_proj.weight.zero_()
            adapter.attention.out_proj.bias.zero_()
    return enhancer, adapter
