"""What the training node shows: what is being done, images of the person before and after, and the loss."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import comfy.model_management
import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from ...idea_core.images import to_pixels
from ...idea_core.training.run import Progress
from .images import to_image
from .loss_curve import FONT_SIZE, INK, PAPER, draw_losses
from .notices import show_as_output, show_on_node
from .progress import NodeProgress, in_a_row

WIDTH, LABEL = 512, 28  # pixels: of the images and of the curve; height of a label
CURVE_EVERY = 3.0  # seconds between two curves without new images


class TrainingView:
    """The training node's line of text, its bar, and one sheet that replaces itself (`training_sheet`)."""

    def __init__(self, steps: int, node_id: str | None):
        self._progress, self._node_id = NodeProgress(steps, node_id), node_id
        self._rows: dict[str, Tensor] = {}  # label → images (B, H, W, 3)
        self._drawn_at = 0.0

    def say(self, doing: str) -> None:
        """Show what begins now; raise if the user has cancelled."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        show_on_node(f"{doing} …", self._node_id)

    def show(self, done: Progress) -> None:
        """Show a step, or what begins; raise if the user has cancelled."""
        if done.doing:
            self.say(done.doing)
            return
        label = f"after {done.step} steps" if done.step else "before the training"
        if done.images is not None:
            self._rows = {key: row for key, row in self._rows.items() if key.startswith("before")} | {
                label: done.images
            }
        now = time.monotonic()
        sheet = None
        if done.images is not None or (done.losses and now - self._drawn_at > CURVE_EVERY):
            self._drawn_at, sheet = now, training_sheet(self._rows, done.losses)
            # In Nodes 2.0 a preview of the bar would stay on the node, beside the image that the node returns.
            sheet = None if show_as_output(sheet, self._node_id) else sheet
        if done.step:
            self._progress.show(done.step, sheet)

    def finish(self, losses: Sequence[float]) -> Tensor:
        """The last sheet (1, H, W, 3), with the losses of the whole training."""
        return training_sheet(self._rows, losses)


def training_sheet(rows: Mapping[str, Tensor], losses: Sequence[float]) -> Tensor:
    """IMAGE (1, H, W, 3): labelled rows of images (B, H, W, 3), and the curve of the losses beside them."""
    pictures = [_labelled(label, images) for label, images in rows.items()]
    height = max(sum(picture.height for picture in pictures), WIDTH)
    parts = [_stacked(pictures, height)] if pictures else []
    if losses:
        parts.append(Image.fromarray(to_pixels(draw_losses(losses, (WIDTH, height)))[0]))
    sheet = Image.new("RGB", (WIDTH * max(len(parts), 1), height), PAPER)
    for number, part in enumerate(parts):
        sheet.paste(part, (number * WIDTH, 0))
    return to_image([np.asarray(sheet)])


def _labelled(label: str, images: Tensor) -> Image.Image:
    row = Image.fromarray(to_pixels(in_a_row(images)))
    row = row.resize((WIDTH, max(round(row.height * WIDTH / row.width), 1)), Image.Resampling.LANCZOS)
    labelled = Image.new("RGB", (WIDTH, row.height + LABEL), PAPER)
    labelled.paste(row, (0, LABEL))
    ImageDraw.Draw(labelled).text((8, LABEL / 2), label, INK, font_size=FONT_SIZE + 3, anchor="lm")
    return labelled


def _stacked(pictures: list[Image.Image], height: int) -> Image.Image:
    stack, y = Image.new("RGB", (WIDTH, height), PAPER), 0
    for picture in pictures:
        stack.paste(picture, (0, y))
        y += picture.height
    return stack
