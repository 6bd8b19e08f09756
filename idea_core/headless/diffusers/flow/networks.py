"""The transformers of Z-Image and FLUX.2 Klein behind one call, and their VAEs' scales."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from ....diffusion.backbone import Latents
from ..images import LatentScale, PlainScale

SEQUENCE = 32  # Z-Image pads images and texts to multiples of it
PATCH = 2  # side of the squares of latents that are one token


class FlowNetwork(Protocol):
    """A pipeline's transformer.

    Attributes:
        scale: between the VAE's latents and the transformer's.
    """

    scale: LatentScale

    def predict(self, noisy: Tensor, sigmas: Tensor, context: Tensor) -> Tensor:
        """``ε − x`` (B, c, h, w) of noisy latents (B, c, h, w) at noise levels (B,), with texts (B, L, d)."""

    def text_begins(self, height: int, width: int, /) -> int:
        """Row of the layers over image and text at which the text begins, for latents of a size."""

    def called(self, inputs: Sequence[Any], options: Mapping[str, Any], /) -> tuple[Sequence[Tensor], int]:
        """Texts (L, d) of a call of the transformer by the pipeline, and where they begin in joint layers."""

    def joined(self, texts: Sequence[Tensor], /) -> Any:
        """Texts (L, d) as the pipeline takes them."""


class ZImageNetwork(FlowNetwork):
    """`ZImageTransformer2DModel`, which answers image minus noise and counts time from noise."""

    def __init__(self, pipeline: Any):
        self._transformer, self.scale = pipeline.transformer, PlainScale(pipeline.vae, PATCH)

    def predict(self, noisy: Tensor, sigmas: Tensor, context: Tensor) -> Tensor:
        images = list(noisy[:, :, None])  # a frame each
        output = self._transformer(images, 1 - sigmas, list(context), return_dict=False)[0]
        return -torch.stack(output)[:, :, 0]

    def text_begins(self, height: int, width: int) -> int:
        tokens = (height // PATCH) * (width // PATCH)
        return -(-tokens // SEQUENCE) * SEQUENCE

    def called(self, inputs: Sequence[Any], _options: Mapping[str, Any]) -> tuple[Sequence[Tensor], int]:
        images, _, texts = inputs
        return texts, self.text_begins(*images[0].shape[-2:])

    def joined(self, texts: Sequence[Tensor]) -> Any:
        return list(texts)


class KleinNetwork(FlowNetwork):
    """`Flux2Transformer2DModel` without guidance; the text comes before the image."""

    def __init__(self, pipeline: Any):
        self._transformer, self._pipeline = pipeline.transformer, pipeline
        self.scale = NormalisedSquares(pipeline.vae)

    def predict(self, noisy: Tensor, sigmas: Tensor, context: Tensor) -> Tensor:
        output = self._transformer(
            hidden_states=noisy.flatten(2).mT,
            timestep=sigmas,
            guidance=None,
            encoder_hidden_states=context,
            txt_ids=self._pipeline._prepare_text_ids(context).to(noisy.device),
            img_ids=self._pipeline._prepare_latent_ids(noisy).to(noisy.device),
            return_dict=False,
        )[0]
        return output.mT.unflatten(2, noisy.shape[2:])

    def text_begins(self, _height: int, _width: int) -> int:
        return 0

    def called(self, _inputs: Sequence[Any], options: Mapping[str, Any]) -> tuple[Sequence[Tensor], int]:
        return options["encoder_hidden_states"], 0

    def joined(self, texts: Sequence[Tensor]) -> Any:
        return torch.stack(list(texts))


class NormalisedSquares(LatentScale):
    """`AutoencoderKLFlux2`: squares of latents side by side, normalised by the VAE's own statistics."""

    def __init__(self, vae: Any):
        self._vae = vae
        self.factor = self.multiple = 2 ** (len(vae.config.block_out_channels) - 1) * PATCH

    def into(self, mean: Tensor, std: Tensor) -> Latents:
        mean, std = pixel_unshuffle(mean, PATCH), pixel_unshuffle(std, PATCH)
        middle, spread = self._statistics(mean)
        return Latents((mean - middle) / spread, std / spread)

    def out(self, latents: Tensor) -> Tensor:
        middle, spread = self._statistics(latents)
        return pixel_shuffle(latents * spread + middle, PATCH)

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (1, c, 1, 1)."""
        norm = self._vae.bn
        mean, variance = (part.to(like).view(1, -1, 1, 1) for part in (norm.running_mean, norm.running_var))
        return mean, (variance + self._vae.config.batch_norm_eps).sqrt()


NETWORKS: dict[str, type[ZImageNetwork] | type[KleinNetwork]] = {
    "ZImagePipeline": ZImageNetwork,
    "Flux2KleinPipeline": KleinNetwork,
}
"""Name of a pipeline's class → its transformer."""
