"""Settings of one person's training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from ..diffusion.backbone import KV_SCOPES
from ..method.losses import ZETA
from ..settings import MAX_SEED, Settings, setting

REGULARIZERS = ("mahalanobis", "names", "l2")
"""Distance of the pseudo-tokens to where they start: Mahalanobis by the spread of the anchor's own rows, as published;
Mahalanobis by the spread of the names; squared Euclidean."""

SPACES = ("input", "output")
"""Where pseudo-tokens stand: among a prompt's tokens, or in place of the text encoders' output for them."""

STARTS = ("names", "cross")
"""Where pseudo-tokens start and how they move: at the mean input embedding of celebrities' names along the names'
principal axes (arXiv 2306.00926, Celeb Basis), or at the cross initialisation, freely, as published."""


def learning_rate(default: float | None, help: str, **declared: Any) -> Any:
    """A field for a learning rate of AdamW."""
    return setting(default, help, **{"min": 0, "soft_max": 1, "step": 1e-5, **declared})


@dataclass(frozen=True)
class TrainConfig(Settings):
    """How one person is trained. Learning rates are AdamW's, constant over the run.

    The defaults come from the miniature world (text width 128; docs/evidence.md). Pseudo-tokens find a person fastest
    along the axes in which names differ. Enhancer and Adapter learn fast only behind an open gate. The published
    regulariser pins the tokens, so it is left out. Adam's learning rate for a layer has to fall with the layer's width.
    `adapter_lr` and `enhancer_lr` are given at width 1024, that of Stable Diffusion 2.x, for which the method was
    published; they are scaled by 1024 / width.
    """

    steps: int = setting(
        25,
        "Optimiser steps. More steps give more likeness; too many make images follow the prompt less.",
        min=0,
        soft_max=10_000,
    )
    batch_size: int = setting(
        4, "Photos per step. Where memory runs out, the batch is split automatically.", min=1, soft_max=64
    )
    seed: int = setting(
        0, "Seed of all random choices. The same seed and inputs give the same person.", min=0, max=MAX_SEED
    )
    start: str = setting(
        "names",
        "Starting point of the pseudo-tokens. names: the mean of celebrity names, moving along the names' principal "
        "axes, which is faster. cross: the published cross initialisation, moving freely.",
        choices=STARTS,
    )
    axes_lr: float = setting(
        0.3,
        "Learning rate of pseudo-tokens with start = names, in standard deviations of the names. With a pretrained "
        "ID-Enhancer the axes are a tenth as long.",
        min=0,
        soft_max=10,
    )
    token_lr: float = learning_rate(
        1e-2, "Learning rate of pseudo-tokens with start = cross, or with fewer than 32 names."
    )
    adapter_lr: float = learning_rate(
        3e-4,
        "Learning rate of ID-Adapter, and of ID-Enhancer unless enhancer_lr is set. 0 leaves both out, unless "
        "enhancer_lr is above 0.",
    )
    kv_lr: float = learning_rate(
        5e-3,
        "Learning rate of the cross attention's keys and values. 0 leaves them out. FLUX, Z-Image and Chroma use a "
        "tenth of it.",
    )
    kv_rank: int | None = setting(
        None,
        "Rank of the change to keys and values. 0 trains full matrices, which need a kv_lr ten times lower. Unset: 8, "
        "2 for SDXL, or 4 for FLUX, Z-Image and Chroma.",
        min=0,
        soft_max=128,
    )
    gate_init: float = setting(
        1.0,
        "Gate of ID-Adapter at the start. At the published 0 the gate is shut, and Enhancer and Adapter hardly learn.",
        soft_max=10,
    )
    flip_p: float = setting(
        0.5, "Probability of mirroring a photo. Use 0 for faces with a mark on one side.", min=0, max=1
    )
    axes: int = setting(
        512, "Maximum number of the names' principal axes for each pseudo-token.", min=1, soft_max=2048, advanced=True
    )
    num_tokens: int = setting(
        2,
        "Number of pseudo-tokens that stand for the person in a prompt. A pretrained ID-Enhancer has its own number.",
        min=1,
        soft_max=8,
        advanced=True,
    )
    heads: int = setting(
        8,
        "Attention heads of ID-Enhancer and ID-Adapter. A pretrained ID-Enhancer has its own number.",
        min=1,
        soft_max=32,
        advanced=True,
    )
    beta: float = setting(
        0.4,
        "Scale of ID-Adapter's gate. A pretrained ID-Enhancer has its own scale.",
        min=0,
        soft_max=10,
        advanced=True,
    )
    regularizer: str = setting(
        "mahalanobis",
        "Distance that holds the pseudo-tokens to their starting point. mahalanobis: scaled by the spread of the "
        "starting point's own rows, as published. names: scaled by the spread of all names. l2: squared distance.",
        choices=REGULARIZERS,
        advanced=True,
    )
    regularizer_weight: float = learning_rate(
        0.0,
        "Weight of the regularizer. The published 0.0008 nearly stops the pseudo-tokens; 0 turns it off.",
        advanced=True,
        option="--reg-weight",
    )
    zeta: float = setting(
        ZETA,
        "Smoothing of the spread in the regularizer. Smaller values hold the pseudo-tokens tighter.",
        above=0,
        soft_max=1,
        step=1e-6,
        advanced=True,
    )
    sample_latents: bool = setting(
        False,
        "Sample a photo's latents from the VAE's posterior at each step, as published. Otherwise its mean is used.",
        advanced=True,
    )
    enhancer_lr: float | None = learning_rate(
        None, "Learning rate of ID-Enhancer. Unset: the same as adapter_lr.", advanced=True
    )
    weight_decay: float = learning_rate(1e-2, "Weight decay of AdamW.", advanced=True)
    adam_epsilon: float = setting(1e-7, "Epsilon of AdamW.", above=0, soft_max=1, step=1e-8, advanced=True)
    likeness_weight: float = setting(
        0.0,
        "Weight of the face similarity loss. At each step the person is drawn and the faces are compared. It needs a "
        "face model, and a step takes 8 to 20 times as long. 0 turns it off.",
        min=0,
        soft_max=10,
    )
    likeness_images: int = setting(
        4, "Images drawn at each step for the face similarity loss.", min=1, soft_max=64, advanced=True
    )
    likeness_sampling_steps: int = setting(
        6, "Sampling steps of each image for the face similarity loss.", min=1, soft_max=50, advanced=True
    )
    likeness_guidance: float = setting(
        5.0, "Guidance scale (CFG) of the images for the face similarity loss.", min=0, soft_max=30, advanced=True
    )
    swa_fraction: float = setting(
        0.0, "Share of the steps, counted from the end, whose weights are averaged. 0 uses the last step.", min=0, max=1
    )
    space: str = setting(
        "auto",
        "Place of the pseudo-tokens. input: among the prompt's tokens. output: in the text encoder's output, which "
        "needs less memory and time. auto: output for FLUX, Z-Image and Chroma, which alone have it, else input.",
        choices=("auto", *SPACES),
        advanced=True,
    )
    kv_scope: str = setting(
        "auto",
        "Scope of the change to keys and values in FLUX, Z-Image and Chroma. person: the name's tokens. text: the "
        "person's prompts. whole: everything, as a LoRA. auto: person. Stable Diffusion has whole alone.",
        choices=("auto", *KV_SCOPES),
        advanced=True,
    )
    adapter_width: int | None = setting(
        None,
        "Width at which ID-Enhancer and ID-Adapter work. Unset: that of the text condition, or 256 for FLUX, "
        "Z-Image and Chroma. A lower width makes files smaller.",
        min=8,
        soft_max=4096,
        advanced=True,
    )

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
        # The published training command: 0.0015 × batch 8 for the tokens and the Adapter. Its optimiser gets neither
        # the Enhancer, which stays as it was initialised, nor keys and values.
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
"""Named settings. "fast": the defaults. "standard" and "thorough": longer, with a lower kv_lr. "likeness": with the
face similarity loss, which needs face models. "paper": the published command (arXiv 2507.11990, authors' code)."""
