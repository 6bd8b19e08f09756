"""A check before the first step: the gradient along one direction against finite differences of the loss.

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

TOLERANCE = 0.25  # of a slope: half precision and curvature move it, what is wrong moves it more
# Of the loss, by which a step should change it: curvature rules the first, noise the last.
_SHARES = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4)
_BLIND_STEP = 1e-2  # of the weights' norm, where no gradient tells the step


class Slopes(NamedTuple):
    """Slope of the loss along one direction, in units of the loss."""

    gradient: float
    measured: tuple[float, ...]  # with smaller and smaller steps

    @property
    def found(self) -> float | None:
        """The slope that two steps one after the other agree on, of the smallest such steps."""
        pairs = zip(self.measured, self.measured[1:])
        return next((later for earlier, later in reversed(list(pairs)) if _alike(earlier, later)), None)

    @property
    def settled(self) -> bool:
        """Whether two steps one after the other have found one slope."""
        return self.found is not None

    @property
    def disagree(self) -> bool:
        """Whether the finite differences have settled, on another slope than the gradient's."""
        return self.found is not None and not _alike(self.gradient, self.found)


def require_right_gradients(trainer: Trainer) -> None:
    """Raise `TrainingError` if the pseudo-tokens' gradients contradict the loss.

    The training stays as it was: its random choices, weights and optimiser. It takes five forward passes of
    one photo, or a few more.
    """
    sampler = BatchSampler(trainer.dataset.buckets, trainer.backbone.schedule, trainer.config)
    batch = sampler.draw().parts(1)[0]
    with torch.enable_grad(), trainer.active():
        slopes = with_less_memory(trainer, lambda: compare_slopes(trainer, batch))
    if slopes.disagree:
        raise TrainingError(
            "gradients that say how the loss changes",
            f"a slope of {slopes.gradient:.3g} where the loss has {slopes.found:.3g}",
            "The base model's code does not allow a training in this version: update ID-EA, or take another version "
            "of ComfyUI or diffusers.",
        )


def compare_slopes(trainer: Trainer, batch: Batch) -> Slopes:
    """Slopes along the gradient of the pseudo-tokens, inside `Trainer.active`; without one, along any direction."""
    weights = list(trainer.person.pseudo_tokens.parameters())
    before = [weight.detach().clone() for weight in weights]
    loss, size = trainer.loss(batch), 0.0
    level = float(loss.detach())
    generator = torch.Generator().manual_seed(0)
    direction = [torch.randn(start.shape, generator=generator).to(start) for start in before]
    direction = [part / _norm(direction) for part in direction]
    steps = [share / 1e-2 * _BLIND_STEP * (1 + _norm(before)) for share in _SHARES]
    if loss.requires_grad:
        scaled = torch.autograd.grad(trainer.scaler.scale(loss), weights, allow_unused=True, materialize_grads=True)
        gradients = [gradient / trainer.scaler.get_scale() for gradient in scaled]
        size = _norm(gradients)
    if size > 0:
        direction, steps = [gradient / size for gradient in gradients], [share * level / size for share in _SHARES]
    slopes = Slopes(size / level, ())
    try:
        for step in steps:
            ends = [_loss_at(trainer, batch, before, direction, sign * step) for sign in (1, -1)]
            slope = (ends[0] - ends[1]) / (2 * step) / level
            slopes = slopes._replace(measured=(*slopes.measured, slope))
            if slopes.settled and not slopes.disagree:  # else smaller steps: curvature may have ruled these
                break
    finally:
        _move(weights, before, direction, 0.0)
    return slopes


@torch.no_grad()
def _loss_at(
    trainer: Trainer, batch: Batch, before: Sequence[Tensor], direction: Sequence[Tensor], step: float
) -> float:
    _move(list(trainer.person.pseudo_tokens.parameters()), before, direction, step)
    return float(trainer.loss(batch))


@torch.no_grad()
def _move(weights: Sequence[Tensor], before: Sequence[Tensor], direction: Sequence[Tensor], step: float) -> None:
    for weight, start, along in zip(weights, before, direction):
        weight.copy_(start + step * along if step else start)


def _alike(one: float, other: float) -> bool:
    return abs(one - other) <= TOLERANCE * max(abs(one), abs(other))


def _norm(parts: Sequence[Tensor]) -> float:
    return float(torch.stack([part.square().sum() for part in parts]).sum().sqrt())
