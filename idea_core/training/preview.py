"""Pictures of a person while the training goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..diffusion.sampling import empty_prompt, sample
from ..errors import ConfigError
from ..text.captions import PLACEHOLDER
from ..text.tokenized import Caption, tokenize_captions
from .trainer import Trainer

PROMPT = "a photo of {}"


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


def preview_captions(trainer: Trainer, config: PreviewConfig) -> list[Caption]:
    """The prompts as token ids.

    Raises:
        ConfigError: one that is too long for the text encoder.
    """
    return tokenize_captions(trainer.backbone, config.prompts, trainer.config.num_tokens)


@torch.no_grad()
def draw_person(trainer: Trainer, config: PreviewConfig = PreviewConfig()) -> Tensor:
    """The person as learnt so far, inside `trainer.kv_deltas`: latents (B, c, h, w) of the photos' first size."""
    backbone = trainer.backbone
    negative = empty_prompt(backbone)
    shape = trainer.sampler.buckets[0].latents.mean.shape[1:]
    noise = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in config.seeds])
    positives = (trainer.condition([caption]) for caption in preview_captions(trainer, config))
    return torch.cat([sample(backbone, one, negative, noise, config.steps, config.guidance) for one in positives])
