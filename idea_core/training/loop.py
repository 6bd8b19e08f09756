"""What the training of a person and of an ID-Enhancer share: the loop over steps, and all that a state file holds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from ..diffusion.backbone import Backbone, Recordings
from ..diffusion.precision import TrainingArithmetic
from ..errors import DivergedError

READ_EVERY = 10  # steps between two reads of the losses, each of which waits for the device
EXPLODED = 5.0  # times the loss of the first steps
MAX_LOSS = 2.0  # a network that predicts nothing has about 1
_FUSED = ("cuda", "cpu")  # devices on which AdamW is one kernel

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""Of Adam."""
OnStep = Callable[[int, Sequence[float]], None]
"""Called after each step with the steps done and the losses read so far; it may raise to cancel."""


class TrainingLoop(ABC):
    """A training that can stop, and be saved, between two steps.

    Args:
        generator: source of all random choices, on the CPU.
        steps: optimiser steps in all.
        micro_batch: samples whose gradients are computed together.

    Attributes:
        losses: loss of each step done, as far as they were read: a reading waits for the device.
        average: mean weights of the last steps, by name; empty without averaging.
        graph_bytes: of GPU memory that recorded steps had for themselves.
    """

    def __init__(
        self,
        backbone: Backbone,
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
        steps: int,
        micro_batch: int,
    ):
        self.backbone, self.optimizer, self.generator = backbone, optimizer, generator
        self.steps, self.micro_batch = steps, micro_batch
        self.scaler = torch.amp.GradScaler(backbone.device.type, enabled=backbone.scales_loss)
        self.losses: list[float] = []
        self.average: dict[str, Tensor] = {}
        self._unread: list[Tensor] = []
        self._good: dict[str, Tensor] = {}  # weights at the start, then at each reading of the losses
        self._stopped = False

    @abstractmethod
    def weights(self) -> dict[str, Tensor]:
        """All that is trained, by name, detached; writing to the tensors changes the model."""

    @abstractmethod
    def drawn_step(self) -> Tensor:
        """Draw a batch and do a step with it; its loss, a detached scalar on the device."""

    @abstractmethod
    def problem(self, losses: Sequence[float], read: int) -> str:
        """What went wrong in the losses after the first `read` ones, or in the weights; "" if all is well."""

    @abstractmethod
    def diverged(self, problem: str) -> DivergedError:
        """What to raise for a `problem`, after which the weights of the last reading are there again."""

    @property
    def steps_done(self) -> int:
        return len(self.losses) + len(self._unread)

    @property
    def recordings(self) -> Recordings | None:
        """What repeats recorded work; None: nothing does."""
        return self.backbone.recordings

    @property
    def graph_bytes(self) -> int:
        return self.recordings.bytes if self.recordings else 0

    def release(self, why: str = "", /) -> bool:
        """Give back memory that only makes steps faster, for a reason; False: there is none."""
        if self.recordings is None or not self.recordings.release(why):
            return False
        self.optimizer.zero_grad(set_to_none=True)  # gradients lie in the recordings' memory
        return True

    @abstractmethod
    def active(self) -> AbstractContextManager[None]:
        """While open, the backbone computes with the trained weights."""

    def run_step(self) -> None:
        """A step of the training."""
        self._good = self._good or copied(self.weights())
        self._unread.append(self.drawn_step())

    def finish_step(self, step: int) -> None:
        """Called after step number `step`, counted from 1; it makes no random choice."""
        if len(self._unread) == READ_EVERY or step == self.steps:
            self.read_losses()

    def read_losses(self) -> list[float]:
        """The losses of all steps so far; it waits for the device.

        Raises:
            DivergedError: the training diverged; the weights are those of the reading before.
        """
        if self._unread:
            losses = self.losses + torch.stack(self._unread).tolist()
            self._unread.clear()
            problem = self.problem(losses, len(self.losses))
            if problem:
                self.set_weights(self._good)
                raise self.diverged(problem)
            self.losses = losses
            self._good = copied(self.weights())
        return self.losses

    def run(self, on_step: OnStep | None = None) -> tuple[float, ...]:
        """Train from the present step up to `steps`; the loss of each step.

        Raises:
            DivergedError: a loss or a weight is no longer finite, or the loss too high.
        """
        backbone = self.backbone
        with torch.enable_grad(), self.active(), TrainingArithmetic(backbone.device, backbone.dtype) as arithmetic:
            try:
                for step in range(self.steps_done + 1, self.steps + 1):
                    if self._stopped:
                        break
                    self._do_step(arithmetic)
                    self.finish_step(step)
                    if on_step:
                        on_step(step, self.losses)
                self.read_losses()
            finally:
                self.release()
        return tuple(self.losses)

    def _do_step(self, arithmetic: TrainingArithmetic) -> None:
        """A step, or nothing: where it breaks off, it is drawn again, in slower ways as long as there are any."""
        random = self.generator.get_state()
        while True:
            try:
                return self.run_step()
            except BaseException as error:
                self.generator.set_state(random)
                if not (arithmetic.gives_up(error) or self.backbone.gives_up(error)):
                    raise

    def stop(self) -> None:
        """End `run` after the present step."""
        self._stopped = True

    @torch.no_grad()
    def set_weights(self, weights: Mapping[str, Tensor]) -> None:
        for key, weight in self.weights().items():
            weight.copy_(weights[key])


def adamw(
    parameters: Iterable[Any], device: torch.device, lr: float = 1e-3, weight_decay: float = 1e-2, eps: float = 1e-8
) -> torch.optim.AdamW:
    """AdamW, in one kernel where there is one; that one counts its steps on the device: the host reads nothing back."""
    groups = list(parameters)
    try:
        fused = True if device.type in _FUSED else None
        return torch.optim.AdamW(groups, lr, eps=eps, weight_decay=weight_decay, fused=fused)
    except RuntimeError:  # PyTorch before 2.4 has none for the CPU
        if device.type == "cuda":
            raise
        return torch.optim.AdamW(groups, lr, eps=eps, weight_decay=weight_decay)


def parameters_of(optimizer: torch.optim.Optimizer) -> list[tuple[dict[str, Any], Tensor]]:
    """An optimiser's parameters in order, each with its group."""
    return [(group, parameter) for group in optimizer.param_groups for parameter in group["params"]]


def moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Adam's state after the first step, by the parameters' numbers: "optimizer.0.exp_avg" and so on."""
    return {
        f"optimizer.{number}.{key}": torch.as_tensor(state[key])
        for number, (_, parameter) in enumerate(parameters_of(optimizer))
        for key in MOMENTS
        if key in (state := optimizer.state.get(parameter, {}))
    }


def copied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: weight.clone() for key, weight in weights.items()}


def explosion(losses: Sequence[float], read: int) -> str:
    """How much higher the losses after the first `read` ones are than the first ones; "" if they are not too high."""
    first, recent = (float(torch.tensor(some).mean()) for some in (losses[:READ_EVERY], losses[read:]))
    if recent > max(EXPLODED * first, MAX_LOSS):
        return f"{recent:.1f} on average of the steps up to {len(losses)}, {first:.2f} at first"
    return ""


def not_finite(losses: Sequence[float], read: int, weights: Mapping[str, Tensor]) -> str:
    """Which of the losses after the first `read` ones is not finite, or that weights are not; "" if all are."""
    fresh = torch.tensor(losses[read:])
    if not fresh.isfinite().all():
        step = read + int(fresh.isfinite().logical_not().nonzero()[0]) + 1
        return f"{losses[step - 1]} at step {step}"
    if not torch.stack([weight.isfinite().all() for weight in weights.values()]).all():
        return f"weights that are not finite after step {len(losses)}"
    return ""
