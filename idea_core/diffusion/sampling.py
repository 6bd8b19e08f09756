"""A small sampler that works on any backbone, and that gradients pass through."""

from __future__ import annotations

import torch
from torch import Tensor

from ..families.base_models import BASE_MODELS
from .backbone import Backbone, TextCondition


@torch.no_grad()
def empty_prompt(backbone: Backbone) -> TextCondition:
    """What guidance leads away from: one prompt without words."""
    return backbone.encode({encoder: [[]] for encoder in BASE_MODELS[backbone.base_model].encoders})


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
