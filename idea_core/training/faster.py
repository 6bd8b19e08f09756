"""Recorded steps in place of computed ones, where the training itself shows that they give the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from ..diffusion.backbone import Backbone
from ..errors import first_line
from .batches import Batch
from .config import TrainConfig
from .loop import copied
from .recorded import MOVED, RecordedStep, Recorder, Recordings, addresses

TRIAL = 3  # steps that are computed and then repeated
TOLERANCE = 1e-3  # relative, of their losses
WORTH = 10  # steps left, from which a recording pays
ALIKE = 0.95  # cosine of a weight's changes


class Recordable(Protocol):
    """A training whose steps may be recorded."""

    config: TrainConfig
    backbone: Backbone
    micro_batch: int

    @property
    def steps_left(self) -> int:
        """The present step included."""

    @property
    def reads_captions_on_host(self) -> bool: ...

    def computed_step(self, batch: Batch, fixed: bool = False) -> Tensor:
        """A step as any device can do it; `fixed`: in the shapes of a recorded one."""

    def recorded_step(self, recorder: Recorder, batch: Batch) -> RecordedStep:
        """A recording for batches of this one's bucket."""

    def weights(self) -> Mapping[str, Tensor]:
        """All that is trained, by name."""

    def changing(self) -> Mapping[str, Tensor]:
        """All tensors that a step changes, by name."""

    def resting(self) -> Sequence[Tensor] | None:
        """All tensors that a step reads or changes where they are; None: some move."""


def obstacle(training: Recordable, rests: bool) -> str:
    """Why steps cannot be recorded as things are; "" if they can.

    Args:
        rests: whether all weights stay where they are.
    """
    backbone = training.backbone
    found = {
        "the likeness loss finds faces on the host": bool(training.config.likeness_weight),
        "captions are read on the host": training.reads_captions_on_host,
        "half precision scales the loss": backbone.scales_loss,
        "memory ran out": training.micro_batch < training.config.batch_size,
        "gradients are checkpointed": backbone.gradient_checkpointing,
        MOVED: not rests,
    }
    return next((reason for reason, there in found.items() if there), "")


class FasterSteps(Recordings[int, RecordedStep]):
    """Steps of a training, recorded where that is possible.

    The first steps of a bucket are computed, and remembered with the state before them. Then a step is recorded, and
    the recording repeats them from that state. If it gives the same losses and changes of the weights, it does all
    further steps. Otherwise the training continues from its computed state, and all steps are computed.
    """

    computed = "steps are computed one by one, not as a CUDA graph"
    recorded = "steps are repeated as a CUDA graph"

    def __init__(self, training: Recordable, recorder: Recorder):
        super().__init__(recorder)
        self._training = training
        self._tried: list[tuple[Batch, Tensor]] = []  # batches and their computed losses
        self._before: dict[str, Tensor] = {}

    def __call__(self, batch: Batch) -> Tensor:
        if not self.reason:
            resting = self._training.resting()
            if reason := obstacle(self._training, resting is not None):
                self.stop(reason)
            self._drop_moved(addresses(resting or ()))
        if self.reason:
            return self._training.computed_step(batch)
        if len(self._tried) == TRIAL:
            self._try()
        # While a bucket is tried, steps of the others are a part of the trial: it repeats all of them.
        recording = None if self._tried else self._recordings.get(batch.bucket)
        loss = self._computed(batch) if recording is None else recording(batch)
        self.repeated += recording is not None
        return loss

    def _forget_trials(self) -> None:
        self._tried.clear()
        self._before = {}

    def _computed(self, batch: Batch) -> Tensor:
        if self.reason or (self._training.steps_left < WORTH and not self._tried):
            return self._training.computed_step(batch)
        self._before = self._before or copied(self._training.changing())
        with self._recorder.warming():
            loss = self._training.computed_step(batch, fixed=True)
        if self._before:  # else memory ran out, and recordings were given up for the step
            self._tried.append((batch, loss))
        return loss

    def _try(self) -> None:
        """Record, repeat the steps that were computed, and compare."""
        tried, before, after = self._tried, self._before, copied(self._training.changing())
        self._tried, self._before = [], {}
        reason = "the recording broke off"
        try:
            for batch, _ in tried:
                if batch.bucket not in self._recordings:
                    self._recordings[batch.bucket] = self._training.recorded_step(self._recorder, batch)
            self._addresses = addresses(self._training.resting() or ())
            self._put_back(before)
            repeated = torch.stack([self._recordings[batch.bucket](batch) for batch, _ in tried])
            computed = torch.stack([loss for _, loss in tried])
            same = torch.allclose(repeated, computed, rtol=TOLERANCE, atol=0)
            reason = "" if same else f"losses of {repeated.tolist()} in place of {computed.tolist()}"
            reason = reason or _other_changes(before, after, self._training.weights())
        except RuntimeError as error:  # something cannot be recorded, or has no memory
            reason = first_line(error)
        finally:
            if reason:
                self._put_back(after)
            self._end_trial(reason)

    @torch.no_grad()
    def _put_back(self, state: Mapping[str, Tensor]) -> None:
        """Write a state into the tensors; what it does not have yet was zero."""
        for key, tensor in self._training.changing().items():
            if key in state:
                tensor.copy_(state[key])
            else:
                tensor.zero_()


def _other_changes(before: Mapping[str, Tensor], after: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> str:
    """The weight whose change from `before` to `now` is another than that to `after`; "" if there is none."""
    likeness = {
        key: torch.cosine_similarity((after[key] - before[key]).flatten(), (weight - before[key]).flatten(), dim=0)
        for key, weight in now.items()
        if (after[key] - before[key]).any() or (weight - before[key]).any()
    }
    if not likeness:
        return ""
    least, key = min(zip(torch.stack(list(likeness.values())).tolist(), likeness))
    return "" if least > ALIKE else f"a change of {key} with a cosine of {least:.3f} to the computed one"
