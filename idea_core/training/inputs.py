"""What a step computes with, on the device. Where shapes are fixed, one step can be recorded and repeated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
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

    def map(self, change: Callable[[Tensor], Tensor]) -> Inputs:
        """All tensors changed."""
        changed = {name: change(part) for name, part in self._asdict().items() if part is not None}
        return self._replace(**changed)

    def spread(self, condition: TextCondition) -> TextCondition:
        """The condition of each photo, from that of the captions."""
        return condition if self.position is None else condition.rows(self.position)


@dataclass(frozen=True, eq=False)
class InputsOf:
    """Sends batches to the device.

    Attributes:
        captions: those of the training.
        captions_device: where indices of captions are wanted.
        fixed: give all batches of one size inputs of one shape. Otherwise a caption is encoded once, whoever has it.
    """

    captions: Sequence[Prompt]
    device: torch.device
    captions_device: torch.device
    fixed: bool = False

    @cached_property
    def same(self) -> Tensor:
        """Number of the first caption that is the same, (C,)."""
        first: dict[int, int] = {}
        return torch.tensor([first.setdefault(id(one), number) for number, one in enumerate(self.captions)])

    def __call__(self, batch: Batch) -> Inputs:
        captions, position = self._encoded(batch.captions)
        return Inputs(
            send(batch.photos, self.device),
            send(batch.levels, self.device),
            send(batch.noise, self.device),
            send(captions, self.captions_device),
            None if position is None else send(position, self.device),
            None if batch.posterior_noise is None else send(batch.posterior_noise, self.device),
        )

    def _encoded(self, captions: Tensor) -> tuple[Tensor, Tensor | None]:
        """Captions that are encoded, and the position of each of `captions` (B,) among them."""
        same, different = self.same[captions], self.same.unique()
        if not self.fixed:
            return same.unique(return_inverse=True)
        if len(different) > len(captions):
            return same, None
        return different, torch.searchsorted(different, same)
