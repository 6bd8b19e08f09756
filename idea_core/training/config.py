"""Settings of a training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from types import MappingProxyType

from ..errors import ConfigError
from ..method.losses import ZETA

REGULARIZERS = ("mahalanobis", "names", "l2")
"""What holds the pseudo-tokens to their anchor: the Mahalanobis distance by the spread of the anchor's own rows, as
published; by the spread of the names that the anchor is the mean of; the squared Euclidean distance."""


STARTS = ("names", "cross")
"""Where pseudo-tokens start and how they move: at the mean input embedding of celebrities' names along the names'
principal axes (arXiv 2306.00926, Celeb Basis), or at the cross initialisation, freely, as published."""


class Settings:
    """What dataclasses of settings share: checks of their values, and themselves as JSON values."""

    def _require(self, field: str, holds: bool, wanted: str) -> None:
        if not holds:
            raise ConfigError(f"{field} {wanted}", str(getattr(self, field)), f"Change {field}.")

    def as_dict(self) -> dict[str, int | float | str | None]:
        return asdict(self)


@dataclass(frozen=True)
class TrainConfig(Settings):
    """How one person is trained. Rates are AdamW's, constant over the run.

    The defaults come from the miniature world (text width 128; docs/evidence.md). Pseudo-tokens find a person fastest
    along the axes in which names differ; Enhancer and Adapter learn fast only behind a gate that stands open; and the
    published regulariser pins the tokens, so it is left out. Adam's rate for
    layers has to fall with their width: `adapter_lr` and `enhancer_lr` are those at the width of Stable Diffusion
    2.x, 1024, for which the method was published, and scaled by 1024 / width elsewhere.

    Attributes:
        steps: optimiser steps; 0 leaves a person as a pretrained Enhancer has it.
        batch_size: photos per step, drawn with replacement.
        seed: of every random choice.
        num_tokens: pseudo-tokens per identity.
        heads: attention heads of Enhancer and Adapter.
        beta: scale of the Adapter's gate.
        start: one of `STARTS`; with too few names for axes it is the cross initialisation. A training that starts at
            the answer of an Enhancer that has seen people moves as it says, along axes a tenth as long.
        axes: at most so many principal axes of the names at each token.
        axes_lr: rate of the pseudo-tokens along the names' axes, in standard deviations of the names.
        token_lr: rate of pseudo-tokens that move freely.
        adapter_lr: rate of Enhancer and Adapter; 0 leaves both out.
        enhancer_lr: rate of the Enhancer where it is another; None: the Adapter's.
        kv_lr: rate of the cross attentions' key and value deltas; 0 leaves them out.
        kv_rank: rank of those deltas; None: the base model's own; 0 trains full matrices, which want a rate ten times
            lower.
        gate_init: γ of the Adapter at the start. At the published 0 its gate is shut, and Enhancer and Adapter learn
            only as far as γ has moved; any other value starts with an Adapter whose output is zero behind an open gate.
        regularizer: one of `REGULARIZERS`.
        regularizer_weight: λ of the regulariser.
        zeta: ζ of the Mahalanobis distances.
        flip_p: probability of a mirrored photo.
        sample_latents: draw a photo's latents from the VAE's posterior at each step, as published; else they are its
            mean, which for Stable Diffusion's VAEs is nearly the same.
        likeness_weight: of the likeness loss (`LikenessLoss`): at each step the person is drawn, and the face compared
            with the photos'. It needs face models, and each picture takes `likeness_sampling_steps` times what a photo
            takes, twice with guidance. 0: none.
        likeness_images: drawn at a step.
        likeness_sampling_steps: of each of them.
        likeness_guidance: scale of their classifier-free guidance.
        swa_fraction: share of the steps, the last ones, whose mean weights the person gets (arXiv 1803.05407); 0: the
            last step's.
        weight_decay: AdamW's.
        adam_epsilon: AdamW's.
    """

    steps: int = 25
    batch_size: int = 4
    seed: int = 0
    num_tokens: int = 2
    heads: int = 8
    beta: float = 0.4
    start: str = "names"
    axes: int = 512
    axes_lr: float = 0.3
    token_lr: float = 1e-2
    adapter_lr: float = 3e-4
    enhancer_lr: float | None = None
    kv_lr: float = 5e-3
    kv_rank: int | None = None
    gate_init: float = 1.0
    regularizer: str = "mahalanobis"
    regularizer_weight: float = 0.0
    zeta: float = ZETA
    flip_p: float = 0.5
    sample_latents: bool = False
    likeness_weight: float = 0.0
    likeness_images: int = 4
    likeness_sampling_steps: int = 6
    likeness_guidance: float = 5.0
    swa_fraction: float = 0.0
    weight_decay: float = 1e-2
    adam_epsilon: float = 1e-7

    def __post_init__(self):
        whole = {"steps": 0, "batch_size": 1, "seed": 0, "num_tokens": 1, "heads": 1, "axes": 1}
        whole |= {"likeness_images": 1, "likeness_sampling_steps": 1}
        rates = ("beta", "axes_lr", "token_lr", "adapter_lr", "kv_lr", "regularizer_weight", "weight_decay")
        at_least = whole | dict.fromkeys((*rates, "likeness_weight", "likeness_guidance"), 0.0)
        for field in whole:
            self._require(field, isinstance(getattr(self, field), int), "a whole number")
        rank = self.kv_rank
        self._require("kv_rank", rank is None or (isinstance(rank, int) and rank >= 0), "a whole number, at least 0")
        for field, least in at_least.items():
            self._require(field, getattr(self, field) >= least, f"at least {least}")
        self._require("enhancer_lr", self.enhancer_lr is None or self.enhancer_lr >= 0, "at least 0")
        self._require("start", self.start in STARTS, f"one of {', '.join(STARTS)}")
        self._require("regularizer", self.regularizer in REGULARIZERS, f"one of {', '.join(REGULARIZERS)}")
        self._require("seed", self.seed < 2**64, "below 2 to the 64th")
        self._require("zeta", self.zeta > 0, "above 0")
        self._require("adam_epsilon", self.adam_epsilon > 0, "above 0")
        self._require("gate_init", isfinite(self.gate_init), "a finite number")
        for field in ("flip_p", "swa_fraction"):
            self._require(field, 0 <= getattr(self, field) <= 1, "between 0 and 1")

    @property
    def has_adapter(self) -> bool:
        """Whether Enhancer and Adapter are trained at all; without them the person is a Textual Inversion."""
        return self.adapter_lr > 0 or bool(self.enhancer_lr)


PRESETS: Mapping[str, TrainConfig] = MappingProxyType(
    {
        "fast": TrainConfig(),
        "standard": TrainConfig(steps=80, kv_lr=2e-3),
        "thorough": TrainConfig(steps=320, kv_lr=2e-3),
        "likeness": TrainConfig(likeness_weight=0.2, swa_fraction=0.5),
        # The published training command: its 0.0015 × batch 8 for all that it gives to its optimiser, which are the
        # tokens and the Adapter. Its Enhancer stays as it was initialised, and keys and values are not trained.
        "paper": TrainConfig(
            steps=320,
            batch_size=8,
            start="cross",
            token_lr=0.012,
            adapter_lr=0.012,
            enhancer_lr=0.0,
            kv_lr=0.0,
            gate_init=0.0,
            regularizer_weight=8e-4,
            sample_latents=True,
        ),
    }
)
"""Named settings. "fast" are the defaults, "standard" and "thorough" train longer and more gently, "likeness" draws the
person at each step and compares faces, for which it needs face models, "paper" are those of
the published command (arXiv 2507.11990, authors' code)."""
