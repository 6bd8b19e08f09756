"""How a node shows its progress: ComfyUI's bar, a line on the node, and images on it."""

from __future__ import annotations

import time

import comfy.model_management
import comfy.utils
import torch
from PIL import Image
from torch import Tensor

from ...idea_core.images import to_pixels
from .notices import show_on_node

PREVIEW_SIZE = 512
SHOW_EVERY = 0.5  # seconds


class NodeProgress:
    """ComfyUI's bar, a line on the node, and images on it."""

    def __init__(self, steps: int, node_id: str | None, unit: str = "steps"):
        self._steps, self._node_id, self._unit = steps, node_id, unit
        self._bar = comfy.utils.ProgressBar(steps)
        self._start: float | None = None  # time of the first step done in this run; later steps are counted
        self._shown_at, self._done, self._step = 0.0, 0, 0

    def show(self, step: int, images: Tensor | None, done: bool = True, note: str = "") -> None:
        """Show a step, and images (B, H, W, 3) of it; raise if the user has cancelled.

        Args:
            done: whether the step was done in this run.
            note: what else the line says.
        """
        comfy.model_management.throw_exception_if_processing_interrupted()
        preview = None if images is None else ("JPEG", Image.fromarray(to_pixels(in_a_row(images))), PREVIEW_SIZE)
        self._bar.update_absolute(step, self._steps, preview)
        now = time.monotonic()
        if done and self._start is None:
            self._start = now
        elif done:
            self._done += step - self._step
        self._step = step
        if now - self._shown_at > SHOW_EVERY or step == self._steps:
            self._shown_at = now
            show_on_node(f"{step} of {self._steps} {self._unit}{note}{self._pace(now)}", self._node_id)

    def _pace(self, now: float) -> str:
        if self._start is None or not self._done or self._step == self._steps:
            return ""
        each = max(now - self._start, 1e-6) / self._done  # some clocks are coarse
        pace = f"{1 / each:.1f} a second" if each < 1 else f"{each:.1f} s each"
        return f", {pace}, {(self._steps - self._step) * each:.0f} s left"


def in_a_row(images: Tensor) -> Tensor:
    """(B, H, W, 3) → (H, B · W, 3)"""
    return torch.cat(list(images), dim=1)
