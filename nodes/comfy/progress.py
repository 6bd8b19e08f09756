"""How a node shows that it works: ComfyUI's bar, a line on the node, and images on it."""

from __future__ import annotations

import time

import comfy.model_management
import comfy.utils
import torch
from PIL import Image
from torch import Tensor

from ...idea_core.images import to_pixels
from .live import show_as_output
from .notices import show_on_node

PREVIEW_SIZE = 512
TELL_EVERY = 0.5  # seconds


class NodeProgress:
    """ComfyUI's bar, a line on the node, and pictures on it.

    Attributes:
        before, last: pictures (B, H, W, 3) before the training and of the last look; None without.
    """

    def __init__(self, steps: int, node_id: str | None, unit: str = "steps"):
        self._steps, self._node_id, self._unit = steps, node_id, unit
        self._bar = comfy.utils.ProgressBar(steps)
        self._start: float | None = None  # of the first step done, from which on steps are counted
        self._told, self._done, self._shown = 0.0, 0, 0
        self.before: Tensor | None = None
        self.last: Tensor | None = None

    def picture(self) -> Image.Image | None:
        """The first picture of the last look."""
        return None if self.last is None else _picture(self.last[0])

    def before_and_after(self) -> Tensor | None:
        """IMAGE (1, 2H, B · W, 3): the pictures before the training over those of the last look."""
        if self.before is None or self.last is None:
            return None
        return torch.cat([_row(self.before), _row(self.last)]).cpu()[None]

    def look(self, step: int, images: Tensor) -> None:
        self.last = images
        both = self.before_and_after()
        if both is not None and show_as_output(_small(both), self._node_id):
            self._bar.update_absolute(step, self._steps)
        else:
            self._preview(step, _row(images) if both is None else both[0])

    def _preview(self, step: int, image: Tensor) -> None:
        self._bar.update_absolute(step, self._steps, ("JPEG", _picture(image), PREVIEW_SIZE))

    def show(self, step: int, images: Tensor | None, done: bool = True) -> None:
        """After each step; it raises where the user has cancelled.

        Args:
            done: in this run, and not before.
        """
        comfy.model_management.throw_exception_if_processing_interrupted()
        if images is None:
            self._bar.update_absolute(step, self._steps)
        else:
            self.look(step, images)
        now = time.monotonic()
        if done:
            self._done += 0 if self._start is None else step - self._shown
            self._start = self._start or now
        self._shown = step
        if now - self._told > TELL_EVERY or step == self._steps:
            self._told = now
            show_on_node(f"{step} of {self._steps} {self._unit}{self._pace(step, now)}", self._node_id)

    def _pace(self, step: int, now: float) -> str:
        if not self._done:
            return ""
        each = max(now - self._start, 1e-6) / self._done  # some clocks are coarse
        pace = f"{1 / each:.1f} a second" if each < 1 else f"{each:.1f} s each"
        return f", {pace}, {(self._steps - step) * each:.0f} s left"


def _row(images: Tensor) -> Tensor:
    """(B, H, W, 3) → (H, B · W, 3)"""
    return torch.cat(list(images), dim=1)


def _small(images: Tensor) -> Tensor:
    """(B, H, W, 3), made smaller where it is larger than a preview."""
    scale = PREVIEW_SIZE / max(images.shape[1:3])
    if scale >= 1:
        return images
    return torch.nn.functional.interpolate(images.movedim(-1, 1), scale_factor=scale, mode="area").movedim(1, -1)


def _picture(image: Tensor) -> Image.Image:
    return Image.fromarray(to_pixels(image[None])[0])
