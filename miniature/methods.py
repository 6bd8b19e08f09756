"""Ways to learn a person, side by side on the same trainer: ID-EA and those that it is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from idea_core.diffusion.backbone import Backbone
from idea_core.enhancers.config import RefineConfig
from idea_core.enhancers.refine import Refiner
from idea_core.training.config import PRESETS, TrainConfig
from idea_core.training.person import LR_WIDTH, PersonModel
from idea_core.training.start import NamesStart, Start

from .models import WIDTH
from .render import SIZE
from .world import AT_ONCE, DRAWING_STEPS, GUIDANCE, enhancer, face_engine, portraits, strangers_face

BARE = {"start": "cross", "adapter_lr": 0.0, "enhancer_lr": None, "kv_lr": 0.0, "regularizer_weight": 0.0}


@dataclass(frozen=True, eq=False)
class Method:
    """One way to learn a person.

    Attributes:
        title: for tables.
        settings: what differs from the default `TrainConfig`.
        start: where the person starts.
        left_out: parts of the identity that are not used for drawing: "adapter".
    """

    title: str
    settings: Mapping[str, Any]
    start: Start = NamesStart()
    left_out: tuple[str, ...] = ()

    def config(self, **changes: Any) -> TrainConfig:
        return replace(TrainConfig(), **{**self.settings, **changes})


class WordStart(NamesStart):
    """Textual Inversion (arXiv 2208.01618): the tokens start as the input embeddings of a word."""

    WORD = "person"

    def build_person(
        self, backbone: Backbone, id_embeds: Tensor, config: TrainConfig, names: Sequence[str]
    ) -> PersonModel:
        person = super().build_person(backbone, id_embeds, config, names)
        ids = backbone.tokenize(self.WORD)
        with torch.no_grad():
            for encoder, tokens in person.tokens.items():
                tokens.copy_(backbone.embed_tokens(encoder, ids[encoder][:1]).expand_as(tokens))
        return person


class EnhancerStart(NamesStart):
    """A start at the pretrained Enhancer's prediction for the person's face."""

    def build_person(
        self, backbone: Backbone, id_embeds: Tensor, config: TrainConfig, names: Sequence[str]
    ) -> PersonModel:
        return enhancer().build_person(backbone, id_embeds, config, names)


class SameFaceStart(EnhancerStart):
    """The prediction for the same stranger's face, whoever the person is."""

    def build_person(
        self, backbone: Backbone, id_embeds: Tensor, config: TrainConfig, names: Sequence[str]
    ) -> PersonModel:
        return super().build_person(backbone, strangers_face().to(id_embeds), config, names)


class RefinedStart(EnhancerStart):
    """The Enhancer's prediction after refinement."""

    def build_person(
        self, backbone: Backbone, id_embeds: Tensor, config: TrainConfig, names: Sequence[str]
    ) -> PersonModel:
        refining = replace(REFINING, seed=_FIRST_SEED + REFINING.num_images * config.seed)
        best = Refiner(backbone, enhancer(), face_engine(), refining).refine(id_embeds)[-1]
        return super().build_person(backbone, best.shown, config, names)


TEXTUAL_INVERSION = Method("Textual Inversion", {**BARE, "token_lr": 1e-2}, WordStart())
CROSS_INITIALIZATION = Method(
    "Cross Initialization", {**BARE, "token_lr": 1e-2, "regularizer": "l2", "regularizer_weight": 1e-5}
)
CELEB_BASIS = Method("Celeb Basis", {**BARE, "start": "names", "axes": 64})
ID_EA = Method("ID-EA", {})
CROSS_ID_EA = Method("ID-EA from the cross initialisation", {"start": "cross"})
SEEN = Method("ID-EA, Enhancer that has seen people", {}, EnhancerStart())
REFINED = Method("ID-EA, Enhancer that has seen people, refined", {}, RefinedStart())
SAME_FACE = Method("one stranger's face for everybody", {}, SameFaceStart())
_PAPER = PRESETS["paper"]
PUBLISHED = Method(
    "ID-EA as published",
    {
        **{
            key: getattr(_PAPER, key)
            for key in ("start", "token_lr", "enhancer_lr", "kv_lr", "regularizer_weight", "gate_init")
        },
        "adapter_lr": _PAPER.adapter_lr * WIDTH / LR_WIDTH,  # the same learning rate for all
    },
    left_out=("adapter",),
)
REFINING = RefineConfig(
    prompts=portraits(RefineConfig.num_images),
    resolution=SIZE,
    sampling_steps=DRAWING_STEPS,
    order=1,  # that of all figures of the study
    guidance=GUIDANCE,
    sampling_batch_size=AT_ONCE,
)
_FIRST_SEED = 10**6  # far from the seeds of the images that are measured
