"""Pictures of a person while the training goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..diffusion.sampling import empty_prompt, sample
from ..settings import Settings, setting
from ..text.captions import require_prompts
from ..text.tokenized import Caption, tokenize_captions
from .trainer import Trainer

PROMPT = "a photo of {}"


@dataclass(frozen=True)
class PreviewConfig(Settings):
    """How previews of a person are drawn.

    Attributes:
        prompts: with `{}` for the person.
        seeds: one for each image of a prompt; the same seeds give the same noise each time.
    """

    prompts: Sequence[str] = (PROMPT,)
    seeds: Sequence[int] = (0,)
    steps: int = setting(12, "Sampling steps of each preview.", min=1)
    guidance: float = setting(5.0, "Guidance scale (CFG) of the previews.")

    def _check(self) -> None:
        self._require("seeds", len(self.seeds) > 0, "with at least one seed")
        require_prompts(self.prompts or ("",), "person")


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
