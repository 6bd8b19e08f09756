"""All that is trained for one person (arXiv 2507.11990): pseudo-tokens, Enhancer, Adapter, K/V deltas."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

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

LR_WIDTH = 1024  # width of the text condition at which the learning rates of Enhancer and Adapter are given

Distance = Callable[[Tensor], Tensor]
"""Pseudo-tokens (n, d_enc) → their distance to where they started, a scalar."""


class FreeTokens(nn.Module):
    """Pseudo-tokens that move freely.

    Args:
        start: text encoder → vectors (n, d_enc).
    """

    def __init__(self, start: Anchor):
        super().__init__()
        self.vectors = nn.ParameterDict({encoder: part.clone() for encoder, part in start.items()})

    def forward(self) -> dict[str, Tensor]:
        """Text encoder → pseudo-tokens (n, d_enc)."""
        return dict(self.vectors.items())

    def lr(self, config: TrainConfig) -> float:
        return config.token_lr


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

    def lr(self, config: TrainConfig) -> float:
        return config.axes_lr


class PersonModel(nn.Module):
    """Everything that is trained for one person, in float32.

    Args:
        pseudo_tokens: the pseudo-tokens.
        anchor: `A` (n, d).
        id_embeds: `a` (512,), L2-normalised.
        modules: Enhancer and Adapter; None for a person of pseudo-tokens alone.
        distances: text encoder → the regulariser's distance.
    """

    anchor: Tensor
    id_embeds: Tensor

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
        self.register_buffer("id_embeds", id_embeds.float().clone())  # it may have been an inference tensor
        self.kv, self._distances = kv, distances

    @property
    def tokens(self) -> dict[str, Tensor]:
        """Text encoder → pseudo-tokens (n, d_enc)."""
        return self.pseudo_tokens()

    def fused(self) -> Tensor | None:
        """`F` (n, 2d); None without Enhancer and Adapter."""
        return None if self.enhancer is None else self.enhancer(self.id_embeds, self.anchor)

    def grounding(self) -> Tensor | None:
        """`fuse(F)` (n, d), what the Adapter sees of the person; None without it."""
        return None if self.adapter is None else self.adapter.grounding(self.fused())

    def adapt(self, condition: TextCondition) -> TextCondition:
        """The text condition as the Adapter changes it for this person."""
        if self.adapter is None:
            return condition
        return condition._replace(context=self.adapter(condition.context, self.fused()))

    def regularizer(self) -> Tensor:
        """Distance of the pseudo-tokens to where they started, summed over the text encoders, a scalar."""
        tokens = self.tokens
        return torch.stack([distance(tokens[encoder]) for encoder, distance in self._distances.items()]).sum()

    def weights(self) -> dict[str, Tensor]:
        """All that is trained, and the anchor and face that it belongs to, by name, detached."""
        return self.state_dict() | self.kv.state_dict()

    def parameter_groups(self, config: TrainConfig) -> list[dict]:
        """AdamW's groups, each with its own learning rate."""
        scale = LR_WIDTH / self.anchor.shape[1]
        enhancer_lr = config.adapter_lr if config.enhancer_lr is None else config.enhancer_lr
        parts: list[tuple[Iterable[Tensor], float]] = [
            (self.pseudo_tokens.parameters(), self.pseudo_tokens.lr(config)),
            (self.kv.parameters(), config.kv_lr),
        ]
        if self.enhancer is not None and self.adapter is not None:
            parts.append((self.enhancer.parameters(), enhancer_lr * scale))
            parts.append((self.adapter.parameters(), config.adapter_lr * scale))
        return [{"params": list(parameters), "lr": lr} for parameters, lr in parts]


class Start(Protocol):
    """Where a person's training starts: at names (`NamesStart`), or at the answer of a `PretrainedEnhancer`."""

    def configure(self, config: TrainConfig) -> TrainConfig:
        """The settings, as this start needs them."""

    def build_person(
        self, backbone: Backbone, id_embeds: Tensor, config: TrainConfig, names: Iterable[str]
    ) -> PersonModel:
        """What is trained, on the backbone's device.

        Args:
            id_embeds: `a` (512,), L2-normalised.
            names: names of well-known people, or a single phrase.
        """


class NamesStart:
    """A start at names of well-known people, and an Enhancer and an Adapter that change nothing yet."""

    def configure(self, config: TrainConfig) -> TrainConfig:
        return config

    def build_person(
        self, backbone: Backbone, id_embeds: Tensor, config: TrainConfig, names: Iterable[str]
    ) -> PersonModel:
        return build_person(backbone, id_embeds, config, names)


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a pretrained Enhancer says of a person, to start from.

    Attributes:
        tokens: text encoder → pseudo-tokens (n, d_enc).
        anchor: `A` (n, d) of its training.
        modules: its Enhancer and Adapter.
        axis_scale: length of the names' axes around the prediction, 1 for their standard deviations.
    """

    tokens: Anchor
    anchor: Tensor
    modules: tuple[Enhancer, Adapter]
    axis_scale: float


def build_person(
    backbone: Backbone,
    id_embeds: Tensor,
    config: TrainConfig,
    names: Iterable[str],
    prediction: Prediction | None = None,
) -> PersonModel:
    """A person who starts at a prediction, or without one at the names.

    Raises:
        ConfigError: names or heads that do not fit the base model.
    """
    d = BASE_MODELS[backbone.base_model].width
    if d % config.heads:
        raise ConfigError(f"heads to divide the width {d}", str(config.heads), "Change heads.")
    anchor = cross_initialise(backbone, names, config.num_tokens)
    basis = names_basis(backbone, names, config.num_tokens, config.axes) if config.start == "names" else None
    if prediction and basis:
        scaled = {encoder: prediction.axis_scale * axes for encoder, axes in basis.axes.items()}
        basis = NamesBasis(prediction.tokens, scaled)
    pseudo_tokens = AxisTokens(basis) if basis else FreeTokens(prediction.tokens if prediction else anchor)
    pseudo_tokens.to(backbone.device)
    modules = (prediction.modules if prediction else _seeded(d, config)) if config.has_adapter else None
    return PersonModel(
        pseudo_tokens,
        prediction.anchor if prediction else torch.cat(list(anchor.values()), dim=-1),
        id_embeds,
        modules,
        _kv_deltas(backbone, config),
        _distances(backbone, pseudo_tokens(), anchor, names, config),
    ).to(backbone.device)


def _kv_deltas(backbone: Backbone, config: TrainConfig) -> KVDeltas:
    shapes = backbone.kv_shapes if config.kv_lr > 0 else {}
    rank = BASE_MODELS[backbone.base_model].kv_rank if config.kv_rank is None else config.kv_rank
    return KVDeltas(shapes, rank, torch.Generator().manual_seed(config.seed), backbone.device)


def _distances(
    backbone: Backbone, start: Mapping[str, Tensor], anchor: Anchor, names: Iterable[str], config: TrainConfig
) -> dict[str, Distance]:
    """Text encoder → the regulariser's distance of its tokens to where they start."""
    start = {encoder: tokens.detach().clone() for encoder, tokens in start.items()}
    if config.regularizer == "l2":
        return {encoder: squared_to(tokens) for encoder, tokens in start.items()}
    spread = spread_of_names(backbone, names, config.num_tokens) if config.regularizer == "names" else anchor
    return {encoder: mahalanobis_to(tokens, config.zeta, spread[encoder]) for encoder, tokens in start.items()}


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
