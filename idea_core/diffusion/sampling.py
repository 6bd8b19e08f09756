"""A small sampler for any backbone, which gradients pass through."""

from __future__ import annotations

import torch
from torch import Tensor

from ..families import BASE_MODELS
from .backbone import Backbone, TextCondition


@torch.no_grad()
def empty_prompt(backbone: Backbone) -> TextCondition:
    """The negative prompt of guidance: one prompt without words."""
    return backbone.encode({encoder: [[]] for encoder in BASE_MODELS[backbone.base_model].encoders})


def sample(
    backbone: Backbone, positive: TextCondition, negative: TextCondition, noise: Tensor, steps: int, guidance: float
) -> Tensor:
    """Latents (B, c, h, w) of DDIM without noise of its own (arXiv 2010.02502, eq. 12), with classifier-free guidance.

    Args:
        positive, negative: conditions of one prompt, or of one prompt for each image.
        noise: (B, c, h, w), standard normal.
    """
    count, noisy = len(noise), noise.to(backbone.device)
    both = _stack(positive, negative, count)
    schedule = backbone.schedule
    times = torch.linspace(schedule.num_timesteps - 1, 0, steps + 1).round().long().to(backbone.device)
    for now, later in zip(times, times[1:]):
        timesteps = now.expand(2 * count)
        with_person, without = backbone.predict(noisy.repeat(2, 1, 1, 1), timesteps, both).chunk(2)
        clean, error = schedule.split(noisy, without + guidance * (with_person - without), now.expand(count))
        noisy = schedule.add_noise(clean, error, later.expand(count))
    return clean


def _stack(positive: TextCondition, negative: TextCondition, count: int) -> TextCondition:
    """Both conditions in one batch, each for `count` images."""

    def stacked(*parts: Tensor) -> Tensor:
        return torch.cat([part.expand(count, *part.shape[1:]) for part in parts])

    context = stacked(positive.context, negative.context)
    if positive.pooled is None or negative.pooled is None:
        return TextCondition(context)
    return TextCondition(context, stacked(positive.pooled, negative.pooled))
