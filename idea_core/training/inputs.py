"""What a step computes with, on the device. Where shapes are fixed, one step can be recorded and repeated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..diffusion.backbone import Prompt, TextCondition
from ..diffusion.memory import send
from .batches import Batch


class Inputs(NamedTuple):
    """A batch's draws, on the device."""

    photos: Tensor  # (B,) indices of latents
    levels: Tensor  # (B,), noise levels
    noise: Tensor  # (B, c, h, w)
    captions: Tensor  # (R,) indices of captions that are encoded
    position: Tensor | None = None  # (B,), of each photo's caption among them; None: there is one for each photo
    posterior_noise: Tensor | None = None  # (B, c, h, w)

    def spread(self, condition: TextCondition) -> TextCondition:
        """The condition of each photo, from that of the captions."""
        return condition if self.position is None else condition.rows(self.position)


class InputsOf:
    """Sends batches to the device.

    Args:
        captions: those of the training.
        captions_device: where indices of captions are wanted.
        fixed: give all batches of one size inputs of one shape. Otherwise a caption is encoded once, whoever has it.
    """

    def __init__(self, captions: Sequence[Prompt], device: torch.device, captions_device: torch.device, fixed: bool):
        self._device, self._captions_device, self._fixed = device, captions_device, fixed
        first: dict[int, int] = {}  # number of the first caption that is the same
        self._same = torch.tensor([first.setdefault(id(one), number) for number, one in enumerate(captions)])
        self._different = self._same.unique()

    def __call__(self, batch: Batch) -> Inputs:
        captions, position = self._encoded(batch.captions)
        return Inputs(
            send(batch.photos, self._device),
            send(batch.levels, self._device),
            send(batch.noise, self._device),
            send(captions, self._captions_device),
            None if position is None else send(position, self._device),
            None if batch.posterior_noise is None else send(batch.posterior_noise, self._device),
        )

    def _encoded(self, captions: Tensor) -> tuple[Tensor, Tensor | None]:
        """Captions that are encoded, and the position of each of `captions` (B,) among them."""
        if not self._fixed:
            return captions.unique(return_inverse=True)
        same = self._same[captions]
        if len(self._different) > len(captions):
            return same, None
        return self._different, torch.searchsorted(self._different, same)
