"""Pictures of a person while the training goes on, by a small sampler that works on any backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .backbone import Backbone, TextCondition
from .captions import PLACEHOLDER
from .errors import ConfigError
from .tokenized import tokenize_captions
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
            if PLACEHOLDER not in prompt:
                raise ConfigError(
                    f"a preview with {PLACEHOLDER} for the person", repr(prompt), f"Put {PLACEHOLDER} in."
                )
        if self.steps < 1 or not self.seeds or not self.prompts:
            got = f"{self.steps} steps, {len(self.seeds)} seeds, {len(self.prompts)} prompts"
            raise ConfigError("a step, a seed and a prompt at least", got, "Change the preview.")


@torch.no_grad()
def draw_person(trainer: Trainer, config: PreviewConfig = PreviewConfig()) -> Tensor:
    """The person as learnt so far, inside `trainer.kv_deltas`: latents (B, c, h, w) of the photos' first size."""
    backbone = trainer.backbone
    negative = backbone.encode({encoder: [[]] for encoder in trainer.person.tokens})
    shape = trainer.sampler.buckets[0].latents.mean.shape[1:]
    noise = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in config.seeds])
    captions = tokenize_captions(backbone, config.prompts)
    positives = (trainer.condition([caption]) for caption in captions)
    return torch.cat([sample(backbone, one, negative, noise, config.steps, config.guidance) for one in positives])


@torch.no_grad()
def sample(
    backbone: Backbone, positive: TextCondition, negative: TextCondition, noise: Tensor, steps: int, guidance: float
) -> Tensor:
    """DDIM without noise of its own (arXiv 2010.02502, equation 12), with classifier-free guidance.

    Args:
        positive, negative: of one prompt, or of one for each picture.
        noise: (B, c, h, w), standard normal.

    Returns:
        Latents (B, c, h, w).
    """
    count, noisy = len(noise), noise.to(backbone.device)
    both = TextCondition(*(_stack(parts, count) for parts in zip(positive, negative)))
    times = torch.linspace(backbone.num_timesteps - 1, 0, steps + 1).round().long().to(backbone.device)
    for now, later in zip(times, times[1:]):
        timesteps = now.expand(2 * count)
        with_person, without = backbone.predict(noisy.repeat(2, 1, 1, 1), timesteps, both).chunk(2)
        clean, error = _split(backbone, noisy, now.expand(count), without + guidance * (with_person - without))
        noisy = backbone.add_noise(clean, error, later.expand(count))
    return clean


def _stack(parts: tuple[Tensor | None, Tensor | None], count: int) -> Tensor | None:
    return None if parts[0] is None else torch.cat([part.expand(count, *part.shape[1:]) for part in parts])


def _split(backbone: Backbone, noisy: Tensor, timesteps: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
    """The picture and the noise that `noisy` is made of, as the UNet's output tells it."""
    one, zero = torch.ones_like(noisy), torch.zeros_like(noisy)
    signal, noise = backbone.add_noise(one, zero, timesteps), backbone.add_noise(zero, one, timesteps)
    if backbone.prediction == "eps":
        return (noisy - noise * output) / signal, output
    return signal * noisy - noise * output, noise * noisy + signal * output
