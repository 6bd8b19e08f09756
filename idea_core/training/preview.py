"""Looks at a person's training: images of the person on the way, and how similar their faces are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..diffusion.sampling import empty_prompt, sample
from ..errors import ConfigError
from ..text.captions import PLACEHOLDER
from ..text.tokenized import Caption, tokenize_captions
from .stopping import EarlyStopping, Look, Watch
from .trainer import Trainer

PROMPT = "a photo of {}"

Score = Callable[[Tensor], float]
"""Images (B, H, W, 3) in 0…1 → their mean cosine to the person's face; an image without a face counts as 0."""


@dataclass(frozen=True)
class PreviewConfig:
    """How such pictures are made.

    Attributes:
        prompts: with `{}` for the person.
        seeds: one for each picture of a prompt; the same ones give the same noise each time.
        steps: of the sampler.
        guidance: scale of classifier-free guidance.
    """

    prompts: Sequence[str] = (PROMPT,)
    seeds: Sequence[int] = (0,)
    steps: int = 12
    guidance: float = 5.0

    def __post_init__(self):
        for prompt in self.prompts:
            if prompt.count(PLACEHOLDER) != 1:
                raise ConfigError(
                    f"a preview with one {PLACEHOLDER} for the person", repr(prompt), f"Write {PLACEHOLDER} once."
                )
        if self.steps < 1 or not self.seeds or not self.prompts:
            got = f"{self.steps} steps, {len(self.seeds)} seeds, {len(self.prompts)} prompts"
            raise ConfigError("a step, a seed and a prompt at least", got, "Change the preview.")


@dataclass(frozen=True)
class WatchConfig:
    """When a training is looked at, and what ends it.

    Attributes:
        every: steps between two looks; 0: never.
        preview: how images are drawn.
        target: likeness at which the training ends; None: it ends only when the likeness has fallen.
        before_and_after: also draw the person before the first step and after the last.
    """

    every: int = 0
    preview: PreviewConfig = PreviewConfig()
    target: float | None = None
    before_and_after: bool = False

    def __post_init__(self):
        if self.every < 0:
            raise ConfigError("0 steps between two looks or more", str(self.every), "Change it.")
        if self.target is not None and not self.every:
            got = "a likeness to reach, and no looks"
            raise ConfigError("looks at which likeness is measured", got, "Set the steps between two.")


def watch_person(trainer: Trainer, config: WatchConfig, score: Score | None) -> Watch | None:
    """What looks at a person's training; None where nothing does.

    Args:
        score: measures the images; None: they are only shown.

    Raises:
        ConfigError: a prompt that is too long for the text encoder.
    """
    if not config.every:
        return None
    preview_captions(trainer, config.preview)  # before the training

    def look() -> Look:
        images = preview_images(trainer, config.preview)
        return Look(images, None if score is None else score(images))

    return Watch(config.every, look, EarlyStopping(config.target))


def preview_images(trainer: Trainer, config: PreviewConfig) -> Tensor:
    """Images (B, H, W, 3) in 0…1 on the CPU of the person as learnt so far, inside `trainer.active`."""
    return trainer.backbone.decode_images(draw_person(trainer, config))


def preview_captions(trainer: Trainer, config: PreviewConfig) -> list[Caption]:
    """The prompts as token ids.

    Raises:
        ConfigError: one that is too long for the text encoder.
    """
    return tokenize_captions(trainer.backbone, config.prompts, trainer.config.num_tokens)


@torch.no_grad()
def draw_person(trainer: Trainer, config: PreviewConfig = PreviewConfig()) -> Tensor:
    """The person as learnt so far, inside `trainer.active`: latents (B, c, h, w) of the photos' first size."""
    backbone = trainer.backbone
    negative = empty_prompt(backbone)
    shape = trainer.dataset.buckets[0].latents.mean.shape[1:]
    noise = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in config.seeds])
    positives = (trainer.condition([caption]) for caption in preview_captions(trainer, config))
    return torch.cat([sample(backbone, one, negative, noise, config.steps, config.guidance) for one in positives])
