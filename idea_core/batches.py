"""What the steps of a training see: photos, mirror images, captions, timesteps, noise, all drawn from one seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from .config import TrainConfig


@dataclass(frozen=True)
class Batch:
    """What one step sees; drawn on the CPU."""

    photos: Tensor  # (B,) indices of latents
    captions: Tensor  # (B,) indices of captions
    timesteps: Tensor  # (B,)
    noise: Tensor  # (B, c, h, w)

    def parts(self, size: int) -> list[Batch]:
        """The same batch in pieces of at most `size`."""
        pieces = zip(*(getattr(self, part.name).split(size) for part in fields(self)))
        return [Batch(*piece) for piece in pieces]


class BatchSampler:
    """Draws batches from one seed: photo, mirror image, caption, timestep and noise.

    Args:
        latents: of the photos, then of their mirror images.
        captions: how many each photo has; they stand one photo after the other.
    """

    def __init__(self, latents: Tensor, captions: Sequence[int], timesteps: int, config: TrainConfig):
        self._shape, self._photos = latents.shape[1:], len(captions)
        self._captions = torch.tensor(captions)
        self._first = self._captions.cumsum(0) - self._captions
        self._timesteps, self._config = timesteps, config
        self.generator = torch.Generator().manual_seed(config.seed)

    def draw(self) -> Batch:
        size, generator = self._config.batch_size, self.generator
        photos = torch.randint(self._photos, (size,), generator=generator)
        mirrored = torch.rand(size, generator=generator) < self._config.flip
        caption = (torch.rand(size, generator=generator) * self._captions[photos]).long()
        return Batch(
            photos=photos + mirrored * self._photos,
            captions=self._first[photos] + caption,
            timesteps=torch.randint(self._timesteps, (size,), generator=generator),
            noise=torch.randn(size, *self._shape, generator=generator),
        )
