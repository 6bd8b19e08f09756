"""How a node shows its progress: ComfyUI's bar, a line on the node, and images on it."""

from __future__ import annotations

import time

import comfy.model_management
import comfy.utils
import torch
from PIL import Image
from torch import Tensor

from ...idea_core.images import to_pixels
from .notices import show_as_output, show_on_node

PREVIEW_SIZE = 512
SHOW_EVERY = 0.5  # seconds


class NodeProgress:
    """ComfyUI's bar, a line on the node, and images on it.

    Attributes:
        before: images (B, H, W, 3) before the training; None without.
    """

    def __init__(self, steps: int, node_id: str | None, unit: str = "steps"):
        self._steps, self._node_id, self._unit = steps, node_id, unit
        self._bar = comfy.utils.ProgressBar(steps)
        self._start: float | None = None  # time of the first step done in this run; later steps are counted
        self._shown_at, self._done, self._step = 0.0, 0, 0
        self.before: Tensor | None = None
        self._last: Tensor | None = None

    def before_and_after(self) -> Tensor | None:
        """IMAGE (1, 2H, B · W, 3): the images before the training above those of the last preview."""
        if self.before is None or self._last is None:
            return None
        return torch.cat([_row(self.before), _row(self._last)]).cpu()[None]

    def show(self, step: int, images: Tensor | None, done: bool = True) -> None:
        """Show a step, and images (B, H, W, 3) of it; raise if the user has cancelled.

        Args:
            done: whether the step was done in this run.
        """
        comfy.model_management.throw_exception_if_processing_interrupted()
        self._bar.update_absolute(step, self._steps, None if images is None else self._preview(images))
        now = time.monotonic()
        if done and self._start is None:
            self._start = now
        elif done:
            self._done += step - self._step
        self._step = step
        if now - self._shown_at > SHOW_EVERY or step == self._steps:
            self._shown_at = now
            show_on_node(f"{step} of {self._steps} {self._unit}{self._pace(now)}", self._node_id)

    def _preview(self, images: Tensor) -> tuple[str, Image.Image, int] | None:
        """A preview for ComfyUI's bar; None where the images are shown as the node's output."""
        self._last = images
        both = self.before_and_after()
        if both is not None and show_as_output(_small(both), self._node_id):
            return None
        image = _row(images)[None] if both is None else both
        return "JPEG", Image.fromarray(to_pixels(image)[0]), PREVIEW_SIZE

    def _pace(self, now: float) -> str:
        if self._start is None or not self._done:
            return ""
        each = max(now - self._start, 1e-6) / self._done  # some clocks are coarse
        pace = f"{1 / each:.1f} a second" if each < 1 else f"{each:.1f} s each"
        return f", {pace}, {(self._steps - self._step) * each:.0f} s left"


def _row(images: Tensor) -> Tensor:
    """(B, H, W, 3) → (H, B · W, 3)"""
    return torch.cat(list(images), dim=1)


def _small(images: Tensor) -> Tensor:
    """Images (B, H, W, 3), scaled down to at most `PREVIEW_SIZE` pixels a side."""
    scale = PREVIEW_SIZE / max(images.shape[1:3])
    if scale >= 1:
        return images
    return torch.nn.functional.interpolate(images.movedim(-1, 1), scale_factor=scale, mode="area").movedim(1, -1)
