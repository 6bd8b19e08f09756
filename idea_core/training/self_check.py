"""A check before the first step: the gradient along one direction against a finite difference of the loss.

Base models are built for inference. A version that writes in place where gradients pass, or computes with buffers that
are used again, gives wrong gradients without a word, and a training that learns nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..diffusion.memory import with_less_memory
from ..errors import TrainingError
from .batches import Batch, BatchSampler
from .trainer import Trainer

TOLERANCE = 0.25  # of the ratio: half precision and curvature move it, what is wrong moves it more
_SHARES = (0.01, 0.04, 0.0025)  # of the loss, by which steps of the finite difference should change it


class Slopes(NamedTuple):
    """Slope of the loss along one direction, in units of the loss."""

    gradient: float
    measured: float

    @property
    def agree(self) -> bool:
        return abs(self.measured - self.gradient) <= TOLERANCE * abs(self.gradient) and self.gradient > 0


def require_right_gradients(trainer: Trainer) -> None:
    """Raise `TrainingError` unless the pseudo-tokens' gradients say how the loss changes.

    The training stays as it was: its random choices, weights and optimiser. It takes three steps' time of one photo.
    """
    sampler = BatchSampler(trainer.dataset.buckets, trainer.backbone.schedule, trainer.config)
    batch = sampler.draw().parts(1)[0]
    with torch.enable_grad(), trainer.active():
        slopes = with_less_memory(trainer, lambda: compare_slopes(trainer, batch))
    if not slopes.agree:
        raise TrainingError(
            "gradients that say how the loss changes",
            f"a slope of {slopes.gradient:.3g} where the loss has {slopes.measured:.3g}",
            "The base model's code does not allow a training in this version: update ID-EA, or take another version "
            "of ComfyUI or diffusers.",
        )


def compare_slopes(trainer: Trainer, batch: Batch) -> Slopes:
    """Slopes along the gradient of the pseudo-tokens, inside `Trainer.active`."""
    weights = list(trainer.person.pseudo_tokens.parameters())
    before = [weight.detach().clone() for weight in weights]
    loss = trainer.loss(batch)
    if not loss.requires_grad:
        return Slopes(0.0, float("nan"))
    scaled = torch.autograd.grad(trainer.scaler.scale(loss), weights, allow_unused=True, materialize_grads=True)
    gradients = [gradient / trainer.scaler.get_scale() for gradient in scaled]
    size, level = _norm(gradients), float(loss.detach())
    if not 0 < size < float("inf"):
        return Slopes(size, float("nan"))
    direction = [gradient / size for gradient in gradients]
    for share in _SHARES:
        step = share * level / size
        try:
            ends = [_loss_at(trainer, batch, before, direction, sign * step) for sign in (1, -1)]
        finally:
            _move(weights, before, direction, 0.0)
        slopes = Slopes(size / level, (ends[0] - ends[1]) / (2 * step) / level)
        if slopes.agree:
            break
    return slopes


@torch.no_grad()
def _loss_at(trainer: Trainer, batch: Batch, before: list[Tensor], direction: list[Tensor], step: float) -> float:
    _move(list(trainer.person.pseudo_tokens.parameters()), before, direction, step)
    return float(trainer.loss(batch))


@torch.no_grad()
def _move(weights: Sequence[Tensor], before: list[Tensor], direction: list[Tensor], step: float) -> None:
    for weight, start, along in zip(weights, before, direction):
        weight.copy_(start + step * along if step else start)


def _norm(parts: list[Tensor]) -> float:
    return float(torch.stack([part.square().sum() for part in parts]).sum().sqrt())
