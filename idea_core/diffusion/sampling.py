"""A small sampler for any backbone, which gradients pass through."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp

import torch
from torch import Tensor

from ..families import BASE_MODELS
from .backbone import Backbone, TextCondition


@torch.no_grad()
def empty_prompt(backbone: Backbone) -> TextCondition:
    """The negative prompt of guidance: one prompt without words."""
    return backbone.encode([backbone.read("")])


def sample(
    backbone: Backbone,
    positive: TextCondition,
    negative: TextCondition,
    noise: Tensor,
    steps: int,
    guidance: float,
    order: int = 1,
) -> Tensor:
    """Latents (B, c, h, w) of a sampler without noise of its own, with classifier-free guidance.

    Order 1 is DDIM (arXiv 2010.02502, eq. 12); for a flow, Euler's method. Order 2 is DPM-Solver++ 2M (arXiv
    2211.01095, algorithm 2), which needs fewer steps.

    Args:
        positive, negative: conditions of one prompt, or of one prompt for each image.
        noise: (B, c, h, w), standard normal.
        guidance: scale; models that are not to be guided do without.
    """
    noisy, schedule = noise.to(backbone.device), backbone.schedule
    chosen = schedule.levels(steps)
    levels, ratios = chosen.to(backbone.device), schedule.log_ratio(chosen).tolist()
    both = _batches(backbone, positive, negative, len(noise))
    before: Tensor | None = None  # the image as the step before saw it
    for number, (now, later) in enumerate(zip(levels, levels[1:])):
        now, later = now.expand(len(noise)), later.expand(len(noise))
        outputs: list[Tensor] = []
        for batch in both:
            times = len(batch.context) // len(noise)
            prediction = backbone.predict(noisy.repeat(times, 1, 1, 1), now.repeat(times), batch)
            outputs += prediction.chunk(times)
        output = outputs[0] if len(outputs) == 1 else outputs[1] + guidance * (outputs[0] - outputs[1])
        clean, error = schedule.split(noisy, output, now)
        target = clean
        if order == 2 and before is not None:
            shift = _extrapolated(ratios[number - 1 : number + 2]) * (clean - before)
            target, error = clean + shift, error - exp(ratios[number]) * shift
        before = clean
        noisy = schedule.add_noise(target, error, later)
    return clean


def _extrapolated(ratios: Sequence[float]) -> float:
    """How far the image moves on from one step to the next: ``1 / 2r`` at three values of `Schedule.log_ratio`."""
    before, now, later = ratios
    return (later - now) / (2 * (now - before))


def _batches(backbone: Backbone, positive: TextCondition, negative: TextCondition, count: int) -> list[TextCondition]:
    """Conditions for `count` images each; the first alone without guidance.

    Both are one batch in cross attention where they are of one length. A transformer's conditions stay apart: they also
    say where the person stands, and nobody does in the second.
    """
    transformer = BASE_MODELS[backbone.base_model].transformer
    alone = [one.map(lambda part: part.expand(count, *part.shape[1:])) for one in (positive, negative)]
    if transformer and not transformer.guided:
        return alone[:1]
    if transformer or positive.context.shape[1] != negative.context.shape[1]:
        return alone
    pooled = [one.pooled for one in alone if one.pooled is not None]
    together = torch.cat(pooled) if len(pooled) == 2 else None
    return [TextCondition(torch.cat([one.context for one in alone]), together)]
