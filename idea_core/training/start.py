"""Where a person's training starts: at names of well-known people, or at a pretrained Enhancer's prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from ..diffusion.backbone import Backbone
from ..errors import ConfigError
from ..families import BASE_MODELS, BaseModel
from ..method.anchor import ROWS, Anchor, NamesBasis, anchor_rows, by_encoder, mean_name, names_basis, spread_of_names
from ..method.kv import KVDeltas
from ..method.losses import mahalanobis_to, squared_to
from ..method.modules import Adapter, Enhancer
from .config import TrainConfig
from .person import AxisTokens, Distance, FreeTokens, PersonModel

AXIS_SCALE = 0.1  # of the names' axes around a prediction, which is closer to the person than the mean name


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
        tokens: text encoder → pseudo-tokens (n, d_enc); or `ROWS` → (n, d).
        anchor: `A` (n, d) of its training.
        modules: its Enhancer and Adapter.
        read: what the text encoders read in place of rows; None: the pseudo-tokens.
    """

    tokens: Anchor
    anchor: Tensor
    modules: tuple[Enhancer, Adapter]
    read: Anchor | None = None


def build_person(
    backbone: Backbone,
    id_embeds: Tensor,
    config: TrainConfig,
    names: Sequence[str],
    prediction: Prediction | None = None,
    free: Anchor | None = None,
) -> PersonModel:
    """A person who starts at a prediction, or at the names without one; arguments as in `Start.build_person`.

    Args:
        free: where pseudo-tokens start that move freely; None: where the settings say.

    Raises:
        ConfigError: names or settings that do not fit the base model.
    """
    base, n = BASE_MODELS[backbone.base_model], config.num_tokens
    config = fitted(config, backbone)
    anchor, output = anchor_rows(backbone, names, n), config.space == "output"
    basis = names_basis(backbone, names, n, config.axes, output) if config.start == "names" else None
    if prediction and basis:
        scaled = {encoder: AXIS_SCALE * axes for encoder, axes in basis.axes.items()}
        basis = NamesBasis(prediction.tokens, scaled)
    start = prediction.tokens if prediction else free or _free_start(backbone, names, anchor, config)
    pseudo_tokens = (AxisTokens(basis) if basis else FreeTokens(start)).to(backbone.device)
    modules = (prediction.modules if prediction else _seeded(base, config)) if config.has_adapter else None
    kv_shapes = backbone.kv_shapes if config.kv_lr > 0 else {}
    assert config.kv_rank is not None
    return PersonModel(
        pseudo_tokens,
        prediction.anchor if prediction else anchor,
        id_embeds,
        modules,
        KVDeltas(kv_shapes, config.kv_rank, torch.Generator().manual_seed(config.seed), backbone.device),
        _distances(backbone, pseudo_tokens(), anchor, names, config),
        (prediction and prediction.read) or (mean_name(backbone, names, n)[0] if output else None),
    ).to(backbone.device)


def fitted(config: TrainConfig, backbone: Backbone) -> TrainConfig:
    """The settings with the base model's own where they are unset; ConfigError for those that it does not have."""
    base, scopes = BASE_MODELS[backbone.base_model], backbone.kv_scopes
    width = base.module_width(config.adapter_width)
    if width % config.heads:
        raise ConfigError(f"heads to divide the width {width}", str(config.heads), "Change heads.")
    if config.space == "output" and base.transformer is None:
        raise ConfigError("space = input", f"output on {base.title}", "Set space to input.")
    own = "input" if base.transformer is None else "output"  # measured: docs/transformers.md
    space = own if config.space == "auto" else config.space
    scope = scopes[0] if config.kv_scope == "auto" else config.kv_scope
    if scope not in scopes:
        fix = "Set kv_scope to auto."
        raise ConfigError(f"kv_scope {' or '.join(scopes)} on {base.title}", config.kv_scope, fix)
    rank = base.kv_rank if config.kv_rank is None else config.kv_rank
    return replace(config, kv_rank=rank, kv_scope=scope, space=space)


def _free_start(backbone: Backbone, names: Sequence[str], anchor: Tensor, config: TrainConfig) -> Anchor:
    """Where pseudo-tokens start that move freely: at the anchor, or at the mean name of a language model."""
    if config.space == "output":
        return {ROWS: anchor}
    if BASE_MODELS[backbone.base_model].crosses or config.start == "cross":
        return by_encoder(backbone, anchor)
    return mean_name(backbone, names, config.num_tokens)[0]


def _distances(
    backbone: Backbone, start: Anchor, anchor: Tensor, names: Sequence[str], config: TrainConfig
) -> dict[str, Distance]:
    """Key of the pseudo-tokens → the regulariser's distance of its tokens to where they start."""
    start = {encoder: tokens.detach().clone() for encoder, tokens in start.items()}
    if config.regularizer == "l2":
        return {encoder: squared_to(tokens) for encoder, tokens in start.items()}
    spread = spread_of_names(backbone, names, config.num_tokens) if config.regularizer == "names" else anchor
    if config.space == "output":
        samples: Anchor = {ROWS: spread}
    elif BASE_MODELS[backbone.base_model].crosses:
        samples = by_encoder(backbone, spread)
    else:
        samples = start  # rows of a language model's output say nothing of its input
    return {encoder: mahalanobis_to(tokens, config.zeta, samples[encoder]) for encoder, tokens in start.items()}


def _seeded(base: BaseModel, config: TrainConfig) -> tuple[Enhancer, Adapter]:
    """Enhancer and Adapter from the training's seed, without effect on the text condition yet."""
    width, heads = base.module_width(config.adapter_width), config.heads
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(config.seed)
        enhancer = Enhancer(width, config.num_tokens, heads)
        adapter = Adapter(base.width, heads, config.beta, width)
        if config.gate_init:
            adapter.open_without_effect(config.gate_init)
    return enhancer, adapter
