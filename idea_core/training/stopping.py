"""Early stopping on a score, such as face similarity, that is measured every few steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from torch import Tensor

MAX_DROP = 0.03  # a training stops when its score is further below its best


class Verdict(Enum):
    """What a training does after a score."""

    CONTINUE = "continue"
    BEST = "keep these weights"
    STOP = "stop"
    RESTORE_BEST = "stop, and go back to the best weights"


@dataclass
class EarlyStopping:
    """Stops at a target, or when the score falls.

    Attributes:
        target: score at which the training ends; None: it ends only when the score falls.
        scores: (step, score) of each measurement.
        reason: why the training ended early; "" if it did not.
        best: weights at the best score; the caller sets them after `Verdict.BEST`.
    """

    target: float | None = None
    scores: list[tuple[int, float]] = field(default_factory=list)
    reason: str = ""
    best: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def update(self, step: int, score: float) -> Verdict:
        """Add a score; what the training does next."""
        self.scores.append((step, round(score, 4)))
        best_step, best = max(self.scores, key=lambda entry: entry[1])
        if self.target is not None and score >= self.target:
            self.reason = f"likeness {score:.3f} reached at step {step}"
            return Verdict.STOP
        if best_step == step:
            return Verdict.BEST
        if score < best - MAX_DROP:
            self.reason = f"likeness fell to {score:.3f} at step {step}; back to step {best_step} with {best:.3f}"
            return Verdict.RESTORE_BEST
        return Verdict.CONTINUE


class Preview(NamedTuple):
    """A preview of a training, its score, or both."""

    images: Tensor | None = None  # (B, H, W, 3) in 0…1
    score: float | None = None


@dataclass
class Watch:
    """Previews or scores of a training, every few steps.

    Attributes:
        every: steps between two previews.
        draw: draws and measures what is trained.
    """

    every: int
    draw: Callable[[], Preview]
    stopping: EarlyStopping = field(default_factory=EarlyStopping)

    def is_due(self, step: int) -> bool:
        return step % self.every == 0
