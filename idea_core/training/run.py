"""A whole run of a training: resumed, saved every few steps, previewed, timed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from ..diffusion.memory import empty_cache, is_out_of_memory
from ..errors import DivergedError, IdentityFileError
from .loop import TrainingLoop, copied
from .state import restore_state, save_state
from .stopping import EarlyStopping, Preview, Verdict, Watch

logger = logging.getLogger(__name__)

_RECENT = 50  # steps whose mean is the final loss
_Result = TypeVar("_Result")
_Loop = TypeVar("_Loop", bound=TrainingLoop)


class Progress(NamedTuple):
    """How far a training is."""

    step: int  # steps done
    losses: Sequence[float] = ()  # of the steps done, as far as they were read
    images: Tensor | None = None  # preview (B, H, W, 3) in 0…1
    doing: str = ""  # what begins now, before the first step

    @property
    def loss(self) -> float | None:
        """The last loss that was read."""
        return self.losses[-1] if self.losses else None


OnProgress = Callable[[Progress], None]
"""Called after each step, and before the first one with what begins; it may raise to cancel."""


@dataclass
class TrainingRun(Generic[_Loop]):
    """A training of a person or an ID-Enhancer, as a context in which its result is also saved.

    An error inside `with` saves the training's state, from which `resume` continues. A training that diverged is not
    worth resuming: its state is deleted, as after a success.

    Attributes:
        state_file: file of the state.
        fingerprint: digest of all that the training depends on.
        save_every: steps between two saves of the state; 0: only after an error.
    """

    training: _Loop
    state_file: Path
    fingerprint: str
    save_every: int = 0
    watch: Watch | None = None
    _seconds: dict[str, float] = field(default_factory=lambda: {"steps": 0.0, "looks": 0.0, "saves": 0.0})
    _steps: int = 0  # done in this run

    @property
    def stopping(self) -> EarlyStopping:
        """The scores so far, and why the training ended early; without a watch there are none."""
        return self.watch.stopping if self.watch else EarlyStopping()

    def __enter__(self) -> TrainingRun[_Loop]:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is None or isinstance(error, DivergedError):
            try:
                self.state_file.unlink(missing_ok=True)
            except OSError as failed:
                logger.warning("ID-EA: %s is no longer needed, and could not be deleted. %s", self.state_file, failed)
            return
        try:
            if self.training.read_losses():
                self._save()
        except Exception as failed:  # it must not hide the error that is being raised
            logger.warning("ID-EA: the state of the training could not be saved. %s", failed)

    def resume(self) -> int:
        """Restore the state that an interrupted run of the same inputs left; the number of steps done."""
        if not self.state_file.exists():
            return 0
        try:
            steps = restore_state(self.training, self.state_file, self.fingerprint, self.stopping)
        except IdentityFileError as error:
            logger.warning("ID-EA: %s cannot be read; the training starts again. %s", self.state_file, error)
            return 0
        if steps:
            logger.info("ID-EA: resuming after step %d from %s", steps, self.state_file)
        else:
            logger.warning("ID-EA: %s belongs to other inputs; the training starts again.", self.state_file)
        return steps

    def run(self, on_progress: OnProgress | None = None) -> None:
        """Train to the end, or until early stopping ends it."""
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        start, before = time.perf_counter(), sum(self._seconds.values())
        try:
            self._repeat_preview(on_progress)
            self.training.run(lambda step, _losses: self._after(step, on_progress))
        finally:
            others = sum(self._seconds.values()) - before
            self._seconds["steps"] += time.perf_counter() - start - others

    def report(self) -> dict[str, Any]:
        """Speed, memory, loss and scores of the run, as JSON values."""
        losses, seconds, stopping = self.training.losses, self._seconds["steps"], self.stopping
        recent = losses[-_RECENT:]
        return {
            "steps_done": len(losses),
            "steps_per_second": round(self._steps / seconds, 3) if seconds else None,
            "seconds": {part: round(value, 2) for part, value in self._seconds.items()},
            "micro_batch": self.training.micro_batch,
            "peak_memory_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
            "graph_bytes": self.training.graph_bytes,
            "final_loss": round(sum(recent) / len(recent), 6) if recent else None,
            "likeness": stopping.scores,
            "ended_early": stopping.reason,
        }

    def _after(self, step: int, on_progress: OnProgress | None) -> None:
        self._steps += 1
        images = None
        if self.watch and self.watch.is_due(step):
            self.training.read_losses()  # raises where the training diverged, before anything is drawn
            images = self._preview(self.watch, step)
        if self.save_every and step % self.save_every == 0 and step < self.training.steps:
            try:
                self._timed("saves", self._save)
            except OSError as error:  # a full disk may have room again at the end
                logger.warning("ID-EA: the training continues, but its state could not be saved. %s", error)
        if on_progress:
            on_progress(self._progress(step, images))

    def _preview(self, watch: Watch, step: int) -> Tensor | None:
        """Draw and measure what is trained, and act on the score; the images."""
        preview = self._timed("looks", lambda: self._drawn(watch))
        verdict = Verdict.CONTINUE if preview.score is None else watch.stopping.update(step, preview.score)
        if verdict is Verdict.BEST:
            watch.stopping.best = copied(self.training.weights())
        elif verdict is not Verdict.CONTINUE:
            self.training.stop()
        if verdict is Verdict.RESTORE_BEST:
            self.training.set_weights(watch.stopping.best)
        return preview.images

    def _drawn(self, watch: Watch) -> Preview:
        try:
            return watch.draw()
        except RuntimeError as error:
            if not is_out_of_memory(error) or not self.training.release("memory runs out while images are drawn"):
                raise
        empty_cache()
        return watch.draw()

    def _repeat_preview(self, on_progress: OnProgress | None) -> None:
        """Draw the preview during which the training broke off."""
        step = len(self.training.losses)
        if step and self.watch and self.watch.is_due(step) and step not in dict(self.watch.stopping.scores):
            with self.training.active():
                images = self._preview(self.watch, step)
            if on_progress and images is not None:
                on_progress(self._progress(step, images))

    def _progress(self, step: int, images: Tensor | None) -> Progress:
        return Progress(step, self.training.losses, images)

    def _timed(self, part: str, work: Callable[[], _Result]) -> _Result:
        start = time.perf_counter()
        try:
            return work()
        finally:
            self._seconds[part] += time.perf_counter() - start

    def _save(self) -> None:
        save_state(self.training, self.state_file, self.fingerprint, self.stopping)
