"""A training from its first step to its last, through breaks: taken up, saved as it goes, watched, timed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..enhancers.trainer import EnhancerTrainer
from ..errors import DivergedError, IdentityFileError
from ..identity.identity import Identity
from .state import restore_state, save_state
from .trainer import Trainer
from .watch import Judged

OnProgress = Callable[[int, Tensor | None], None]
"""Called after each step with the steps done, and pictures (B, H, W, 3) if it was looked at; it may raise to cancel."""
_RECENT = 50  # steps that a final loss is the mean of


def keep(identity: Callable[[], Identity], result: Path, steps: int) -> None:
    """Save what a training that broke off had learnt, beside where its result would be.

    The error that broke it is on its way, and is not hidden by another one.
    """
    path = result.with_stem(f"{result.stem}-step-{steps:05}")
    try:
        learnt = identity()
        learnt.save(path)
        logging.warning("ID-EA: what %s had learnt in %d steps is kept: %s", learnt.trigger, steps, path)
    except Exception as error:
        logging.warning("ID-EA: what was learnt could not be kept. %s", error)


@dataclass
class TrainingRun:
    """One person's training, or one across people, inside `with`, until its result is safe.

    Whatever breaks it off there, the training goes on from the same step when it is run again; only where it diverged
    that would be of no use.

    Attributes:
        state_file: from which it goes on if it broke off, and where it is saved if it breaks off.
        fingerprint: of all that the training depends on, as `save_state` takes it.
        save_every: steps between two saves; 0: only when it is cancelled.
    """

    trainer: Trainer | EnhancerTrainer
    state_file: Path
    fingerprint: str
    save_every: int = 0
    watch: Judged | None = None
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
        """Bring the trainer to where a broken run of the same inputs stood; the steps that were done."""
        if not self.state_file.exists():
            return 0
        try:
            steps = restore_state(self.trainer, self.state_file, self.fingerprint, self.watch)
        except IdentityFileError as error:
            logging.warning("ID-EA: %s is of no use, training starts anew. %s", self.state_file, error)
            return 0
        if steps:
            logging.warning("ID-EA: going on after step %d of %s", steps, self.state_file)
        else:
            logging.warning("ID-EA: %s is of other inputs, training starts anew.", self.state_file)
        return steps

    def run(self, on_step: OnProgress | None = None) -> None:
        """Train to the end.

        Raises:
            DivergedError: the trainer holds what was learnt before.
        """
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        start, before = time.perf_counter(), sum(self._seconds.values())
        try:
            self._look_again(on_step)
            self.trainer.run(lambda step, _losses: self._after(step, on_step))
        finally:
            others = sum(self._seconds.values()) - before
            self._seconds["steps"] += time.perf_counter() - start - others

    def report(self) -> dict[str, Any]:
        """What is worth knowing of the run, JSON values: seconds and bytes where they say so."""
        losses = self.trainer.losses
        recent = losses[-_RECENT:]
        seconds = self._seconds["steps"]
        return {
            "steps_done": len(losses),
            "steps_per_second": round(self._steps / seconds, 3) if seconds else None,
            "seconds": {part: round(value, 2) for part, value in self._seconds.items()},
            "micro_batch": self.trainer.micro_batch,
            "peak_memory_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
            "final_loss": round(sum(recent) / len(recent), 6) if recent else None,
            "likeness": self.watch.scores if self.watch else [],
            "ended_early": self.watch.ended if self.watch else "",
        }

    def _after(self, step: int, on_step: OnProgress | None) -> None:
        self._steps += 1
        images = None
        if self.watch and self.watch.is_due(step):
            self.trainer.read_losses()  # of a training that has diverged no picture is drawn
            images = self._timed("looks", lambda: self.watch.look(step))
        if self.save_every and step % self.save_every == 0 and step < self.trainer.config.steps:
            self._timed("saves", self._save_on_the_way)
        if on_step:
            on_step(step, images)

    def _look_again(self, on_step: OnProgress | None) -> None:
        """Make up for a look in which the training broke off."""
        step = len(self.trainer.losses)
        if step and self.watch and self.watch.is_due(step) and step not in dict(self.watch.scores):
            with self.trainer.kv_deltas():
                images = self._timed("looks", lambda: self.watch.look(step))
            if on_step and images is not None:
                on_step(step, images)

    def _timed(self, part: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        try:
            return work()
        finally:
            self._seconds[part] += time.perf_counter() - start

    def _forget(self) -> None:
        try:
            self.state_file.unlink(missing_ok=True)
        except OSError as error:
            logging.warning("ID-EA: %s is of no use any more, and could not be deleted. %s", self.state_file, error)

    def _save_on_the_way(self) -> None:
        try:
            save_state(self.trainer, self.state_file, self.fingerprint, self.watch)
        except OSError as error:  # a full disk may have room again at the end
            logging.warning("ID-EA: the training goes on, but its state could not be saved. %s", error)

    def _save_what_is_there(self) -> None:
        """Before an error goes on its way, which must not be hidden by another one."""
        try:
            if self.trainer.read_losses():
                save_state(self.trainer, self.state_file, self.fingerprint, self.watch)
        except Exception as error:
            logging.warning("ID-EA: the broken training could not be saved. %s", error)
