"""What is looked at while a training goes on: pictures of the person, their likeness, and when that is enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError
from ..settings import Settings, setting
from .preview import PreviewConfig, draw_person, preview_captions

MAX_DROP = 0.03  # below the best likeness, by which a training has gone too far

Likeness = Callable[[Tensor], float]
"""Images (B, H, W, 3) in 0…1 → their mean cosine to the person's face; a picture without a face counts as 0."""


@dataclass(frozen=True)
class WatchConfig(Settings):
    """When previews are drawn, and when a training ends early.

    Attributes:
        preview: how previews are drawn.
    """

    every: int = setting(
        0,
        "Steps between two previews of the person. 0: none.",
        min=0,
        soft_max=10_000,
        advanced=True,
        option="--preview-every",
    )
    preview: PreviewConfig = PreviewConfig()
    target: float | None = setting(
        None,
        "Face similarity (cosine) of the previews at which the training ends. When the similarity falls, the training "
        "ends too, at its best step.",
        step=0.01,
        soft_max=1,
        advanced=True,
        option="--until-likeness",
    )

    def _check(self) -> None:
        if self.target is not None and not self.every:
            got = "a likeness to reach, and no previews"
            raise ConfigError("previews at which likeness is measured", got, "Set the steps between two previews.")


@dataclass
class Judged:
    """A training whose likeness is measured now and then, and which ends by it.

    Attributes:
        every: steps between two looks; 0: never.
        scores: (step, likeness) of each look.
        ended: why the training ended early; "" if it did not.
    """

    trainer: Any
    every: int = field(default=0, kw_only=True)
    scores: list[tuple[int, float]] = field(default_factory=list, kw_only=True)
    ended: str = field(default="", kw_only=True)
    _best: dict[str, Tensor] = field(default_factory=dict, kw_only=True, repr=False)

    def is_due(self, step: int) -> bool:
        return bool(self.every) and step % self.every == 0

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What a later run has to know: JSON values, and the best weights."""
        return {"scores": self.scores, "ended": self.ended}, self._best

    def restore(self, said: Mapping[str, Any], best: Mapping[str, Tensor]) -> None:
        """Go on from another run's `state`."""
        self.scores[:] = [(step, likeness) for step, likeness in said["scores"]]
        self.ended, self._best = said["ended"], dict(best)
        if self.ended:
            self.trainer.stop()

    def judge(self, step: int, likeness: float, target: float | None = None) -> None:
        """End the training where likeness reaches the target, or has fallen: then it goes back to its best."""
        self.scores.append((step, round(likeness, 4)))
        best_step, best = max(self.scores, key=lambda score: score[1])
        if target is not None and likeness >= target:
            self._end(f"likeness {likeness:.3f} reached at step {step}")
        elif best_step == step:
            self._best = {key: weight.clone() for key, weight in self.trainer.weights().items()}
        elif likeness < best - MAX_DROP:
            self._end(f"likeness fell to {likeness:.3f} at step {step}; back to step {best_step} with {best:.3f}")
            with torch.no_grad():
                for key, weight in self.trainer.weights().items():
                    weight.copy_(self._best[key])

    def _end(self, reason: str) -> None:
        self.ended = reason
        self.trainer.stop()


@dataclass
class Watch(Judged):
    """Looks at one person's training.

    Attributes:
        likeness: of pictures; None: they are only shown.

    Raises:
        ConfigError: a prompt that is too long for the text encoder.
    """

    config: WatchConfig
    likeness: Likeness | None = None

    def __post_init__(self):
        self.every = self.config.every
        preview_captions(self.trainer, self.config.preview)  # what is wrong with them is said before the training

    def look(self, step: int) -> Tensor:
        """Images (B, H, W, 3) of the person as learnt so far; it may end the training."""
        images = self.draw()
        if self.likeness is not None:
            self.judge(step, self.likeness(images), self.config.target)
        return images

    def draw(self) -> Tensor:
        """Images (B, H, W, 3), inside `trainer.kv_deltas`; they end nothing."""
        return self.trainer.backbone.decode_images(draw_person(self.trainer, self.config.preview))
