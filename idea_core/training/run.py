"""A training from its first step to its last, through breaks: resumed, saved as it goes, watched, timed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from ..errors import DivergedError, IdentityFileError
from .loop import TrainingLoop, copied
from .state import restore_state, save_state
from .stopping import Verdict, Watch

logger = logging.getLogger(__name__)

_RECENT = 50  # steps that a final loss is the mean of
_Result = TypeVar("_Result")
_Loop = TypeVar("_Loop", bound=TrainingLoop)


class Progress(NamedTuple):
    """How far a training is.

    Attributes:
        step: steps done.
        loss: of the last step whose loss was read; None before any.
        images: (B, H, W, 3) in 0…1, if it was looked at.
    """

    step: int
    loss: float | None = None
    images: Tensor | None = None


OnProgress = Callable[[Progress], None]
"""Called after each step; it may raise to cancel."""


@dataclass
class TrainingRun(Generic[_Loop]):
    """A training, of a person or of an Enhancer, inside `with`, until its result is safe.

    Whatever breaks it off there, the training goes on from the same step when it is run again; only where it diverged
    that would be of no use.

    Attributes:
        state_file: from which it goes on if it broke off, and where it is saved if it breaks off.
        fingerprint: of all that the training depends on, as `save_state` takes it.
        save_every: steps between two saves; 0: only when it is cancelled.
    """

    training: _Loop
    state_file: Path
    fingerprint: str
    save_every: int = 0
    watch: Watch | None = None
    _seconds: dict[str, float] = field(default_factory=lambda: {"steps": 0.0, "looks": 0.0, "saves": 0.0})
    _steps: int = 0  # done in this run

    def __enter__(self) -> TrainingRun:
        return self

    def __exit__(self, _kind, error, _trace) -> None:
        if error is None or isinstance(error, DivergedError):
            self._forget()
        else:
            self._save_what_is_there()

    def resume(self) -> int:
        """Bring the training to where a broken run of the same inputs stood; the steps that were done."""
        if not self.state_file.exists():
            return 0
        try:
            stopping = self.watch.stopping if self.watch else None
            steps = restore_state(self.training, self.state_file, self.fingerprint, stopping)
        except IdentityFileError as error:
            logger.warning("ID-EA: %s cannot be read; the training starts again. %s", self.state_file, error)
            return 0
        if steps:
            logger.info("ID-EA: resuming after step %d from %s", steps, self.state_file)
        else:
            logger.warning("ID-EA: %s belongs to other inputs; the training starts again.", self.state_file)
        return steps

    def run(self, on_progress: OnProgress | None = None) -> None:
        """Train to the end.

        Raises:
            DivergedError: the training holds what was learnt before.
        """
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        start, before = time.perf_counter(), sum(self._seconds.values())
        try:
            self._look_again(on_progress)
            self.training.run(lambda step, _losses: self._after(step, on_progress))
        finally:
            others = sum(self._seconds.values()) - before
            self._seconds["steps"] += time.perf_counter() - start - others

    def report(self) -> dict[str, Any]:
        """What is worth knowing of the run, JSON values: seconds and bytes where they say so."""
        losses = self.training.losses
        recent = losses[-_RECENT:]
        seconds = self._seconds["steps"]
        stopping = self.watch.stopping if self.watch else None
        return {
            "steps_done": len(losses),
            "steps_per_second": round(self._steps / seconds, 3) if seconds else None,
            "seconds": {part: round(value, 2) for part, value in self._seconds.items()},
            "micro_batch": self.training.micro_batch,
            "peak_memory_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
            "final_loss": round(sum(recent) / len(recent), 6) if recent else None,
            "likeness": stopping.scores if stopping else [],
            "ended_early": stopping.reason if stopping else "",
        }

    def _after(self, step: int, on_progress: OnProgress | None) -> None:
        self._steps += 1
        images = None
        if self.watch and self.watch.is_due(step):
            self.training.read_losses()  # of a training that has diverged no image is drawn
            images = self._look(self.watch, step)
        if self.save_every and step % self.save_every == 0 and step < self.training.steps:
            self._timed("saves", self._save_on_the_way)
        if on_progress:
            on_progress(self._progress(step, images))

    def _look(self, watch: Watch, step: int) -> Tensor | None:
        """Images of what is trained; the training ends here where its score says so."""
        look = self._timed("looks", watch.look)
        verdict = Verdict.CONTINUE if look.score is None else watch.stopping.update(step, look.score)
        if verdict is Verdict.BEST:
            watch.stopping.best = copied(self.training.weights())
        elif verdict is not Verdict.CONTINUE:
            self.training.stop()
        if verdict is Verdict.RESTORE_BEST:
            self.training.set_weights(watch.stopping.best)
        return look.images

    def _look_again(self, on_progress: OnProgress | None) -> None:
        """Make up for a look in which the training broke off."""
        step = len(self.training.losses)
        if step and self.watch and self.watch.is_due(step) and step not in dict(self.watch.stopping.scores):
            with self.training.active():
                images = self._look(self.watch, step)
            if on_progress and images is not None:
                on_progress(self._progress(step, images))

    def _progress(self, step: int, images: Tensor | None) -> Progress:
        losses = self.training.losses
        return Progress(step, losses[-1] if losses else None, images)

    def _timed(self, part: str, work: Callable[[], _Result]) -> _Result:
        start = time.perf_counter()
        try:
            return work()
        finally:
            self._seconds[part] += time.perf_counter() - start

    def _forget(self) -> None:
        try:
            self.state_file.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("ID-EA: %s is no longer needed, and could not be deleted. %s", self.state_file, error)

    def _save(self) -> None:
        save_state(self.training, self.state_file, self.fingerprint, self.watch.stopping if self.watch else None)

    def _save_on_the_way(self) -> None:
        try:
            self._save()
        except OSError as error:  # a full disk may have room again at the end
            logger.warning("ID-EA: the training goes on, but its state could not be saved. %s", error)

    def _save_what_is_there(self) -> None:
        """Before an error goes on its way, which must not be hidden by another one."""
        try:
            if self.training.read_losses():
                self._save()
        except Exception as error:
            logger.warning("ID-EA: the training that broke off could not be saved. %s", error)
