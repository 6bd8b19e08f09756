"""The posterior that ComfyUI's VAE does not give."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def recorded_deviation(vae) -> Iterator[Callable[[Tensor], Tensor]]:
    """While open, a function tells the standard deviation that goes with a mean which the VAE has just encoded.

    ComfyUI's VAE gives the mean alone; where it encodes in tiles, or has no posterior, the deviation is 0.
    """
    seen: list[Tensor] = []
    part = getattr(vae.first_stage_model, "regularization", None)
    hook = None if part is None else part.register_forward_pre_hook(lambda _part, inputs: seen.append(inputs[0]))

    def deviation(mean: Tensor) -> Tensor:
        shapes = [(len(moments), moments.shape[1] // 2, *moments.shape[2:]) for moments in seen]
        if shapes != [tuple(mean.shape)]:
            return torch.zeros_like(mean)
        return seen[0].chunk(2, dim=1)[1].to(mean).clamp(-30, 20).div(2).exp()

    try:
        yield deviation
    finally:
        if hook is not None:
            hook.remove()
