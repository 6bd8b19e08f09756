"""Ways to learn a person of the drawn world, besides those of `idea_core.training.methods`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from idea_core.diffusion.backbone import Backbone
from idea_core.enhancers.config import RefineConfig
from idea_core.enhancers.refine import Refiner
from idea_core.training import methods
from idea_core.training.config import PRESETS, TrainConfig
from idea_core.training.methods import Method
from idea_core.training.person import LR_WIDTH, PersonModel
from idea_core.training.start import NamesStart

from .models import WIDTH
from .render import SIZE
from .world import AT_ONCE, DRAWING_STEPS, GUIDANCE, enhancer, face_engine, portraits, strangers_face


@dataclass(frozen=True)
class EnhancerStart(NamesStart):
    """A start at the pretrained Enhancer's prediction for the person's face."""

    def build_person(
        self, backbone: Backbone, id_embeds: Tensor, config: TrainConfig, names: Sequence[str]
    ) -> PersonModel:
        return enhancer().build_person(backbone, id_embeds, config, names)


@dataclass(frozen=True)
class SameFaceStart(EnhancerStart):
    """The prediction for the same stranger's face, whoever the person is."""

    def build_person(
        self, backbone: Backbone, id_embeds: Tensor, config: TrainConfig, names: Sequence[str]
    ) -> PersonModel:
        return super().build_person(backbone, strangers_face().to(id_embeds), config, names)


@dataclass(frozen=True)
class RefinedStart(EnhancerStart):
    """The Enhancer's prediction after refinement."""

    def build_person(
        self, backbone: Backbone, id_embeds: Tensor, config: TrainConfig, names: Sequence[str]
    ) -> PersonModel:
        refining = replace(REFINING, seed=_FIRST_SEED + REFINING.num_images * config.seed)
        best = Refiner(backbone, enhancer(), face_engine(), refining).refine(id_embeds)[-1]
        return super().build_person(backbone, best.shown, config, names)


CROSS_ID_EA = Method("ID-EA from the cross initialisation", {"start": "cross"})
SEEN = Method("ID-EA, Enhancer that has seen people", {}, EnhancerStart())
REFINED = Method("ID-EA, Enhancer that has seen people, refined", {}, RefinedStart())
SAME_FACE = Method("one stranger's face for everybody", {}, SameFaceStart())
_PAPER = PRESETS["paper"]
PUBLISHED = Method(  # with the study's batch size, captions and steps
    methods.PUBLISHED.title,
    {
        **{
            key: getattr(_PAPER, key)
            for key in ("start", "token_lr", "enhancer_lr", "kv_lr", "regularizer_weight", "gate_init")
        },
        "adapter_lr": _PAPER.adapter_lr * WIDTH / LR_WIDTH,  # the same learning rate for all
    },
    left_out=methods.PUBLISHED.left_out,
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
