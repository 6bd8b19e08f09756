"""A base model that draws."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..diffusion.backbone import Backbone, TextCondition
from ..diffusion.memory import empty_cache, is_out_of_memory, out_of_memory_as
from ..diffusion.sampling import empty_prompt, sample
from ..errors import TrainingError
from ..text.tokenized import quoted, require_short

logger = logging.getLogger(__name__)

BLANK = 64  # pixels; any picture small enough tells how many latents a pixel has
OnDrawn = Callable[[int], None]
"""Called with how many of the pictures are drawn, but for the VAE; it may raise to cancel."""


class ImageSampler:
    """A base model that draws.

    Args:
        resolution: side in pixels.
        sampling_steps: of each picture.
        guidance: scale of classifier-free guidance.
        sampling_batch_size: pictures sampled together; it changes no picture but for rounding. Where memory runs out
            there are fewer from then on.
    """

    def __init__(self, backbone: Backbone, resolution: int, sampling_steps: int, guidance: float, at_once: int):
        self._backbone, self._steps, self._guidance, self._at_once = backbone, sampling_steps, guidance, at_once
        self._resolution = resolution
        channels, side, _ = backbone.encode_images(torch.zeros(1, BLANK, BLANK, 3)).mean.shape[1:]
        self._shape = (channels, side * resolution // BLANK, side * resolution // BLANK)
        self._negative = empty_prompt(backbone)

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Latents (B, c, h, w) in half precision and images (B, H, W, 3) of prompts, one seed each."""
        return self.draw_conditions(self._encode(prompts), seeds)

    @torch.no_grad()
    def draw_conditions(
        self, conditions: TextCondition, seeds: Sequence[int], on_drawn: OnDrawn | None = None
    ) -> tuple[Tensor, Tensor]:
        """The same of conditions that are there already.

        Raises:
            TrainingError: no memory for a single picture.
        """
        noise = torch.stack([torch.randn(self._shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
        latents, begin, got = [], 0, f"out of memory at {self._resolution} pixels"
        with out_of_memory_as(TrainingError("memory for a picture", got, "Lower the resolution.")):
            while begin < len(noise):
                part = slice(begin, begin + self._at_once)
                positive = TextCondition(*(None if tensor is None else tensor[part] for tensor in conditions))
                drawn = self._sample(positive, noise[part])
                if drawn is None:
                    continue
                latents.append(drawn)
                begin += len(drawn)
                if on_drawn:
                    on_drawn(begin)
            drawn = torch.cat(latents)
            return drawn.half().cpu(), self._backbone.decode_images(drawn)

    def _sample(self, positive: TextCondition, noise: Tensor) -> Tensor | None:
        """Latents; None where memory ran out, and there are fewer pictures at a time from now on."""
        try:
            return sample(self._backbone, positive, self._negative, noise, self._steps, self._guidance)
        except RuntimeError as error:
            if not is_out_of_memory(error) or self._at_once == 1:
                raise
        self._at_once = (self._at_once + 1) // 2
        logger.warning("ID-EA: out of memory; going on with %d pictures at a time.", self._at_once)
        empty_cache()
        return None

    @torch.no_grad()
    def _encode(self, texts: Sequence[str]) -> TextCondition:
        ids = [self._backbone.tokenize(text) for text in texts]
        for text, one in zip(texts, ids):
            require_short(self._backbone, max(map(len, one.values())), quoted(text))
        return self._backbone.encode({encoder: [one[encoder] for one in ids] for encoder in ids[0]})
