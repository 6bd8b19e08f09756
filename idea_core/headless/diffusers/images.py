"""Images to the network's latents and back, by a pipeline's VAE in single precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ...diffusion.backbone import Latents
from ...errors import ConfigError

DECODED_PIXELS = 512**2  # decoded together, which bounds the VAE's memory


class LatentScale(Protocol):
    """Between a VAE's latents and the network's."""

    factor: int
    """Pixels of a network latent's side."""
    multiple: int
    """What divides the images' sides."""

    def into(self, mean: Tensor, std: Tensor) -> Latents:
        """The network's latents of a VAE's posterior."""

    def out(self, latents: Tensor) -> Tensor:
        """The VAE's latents (B, c, h, w)."""


class PlainScale(LatentScale):
    """A VAE whose latents are scaled, and shifted where its configuration says so.

    Args:
        patch: side of the squares of latents that are one token to the network.
    """

    def __init__(self, vae: Any, patch: int = 1):
        self._config = vae.config
        self.factor = 2 ** (len(vae.config.block_out_channels) - 1)
        self.multiple = self.factor * patch

    def into(self, mean: Tensor, std: Tensor) -> Latents:
        scale, shift = self._config.scaling_factor, self._config.shift_factor
        return Latents((mean - shift if shift else mean) * scale, std * scale)

    def out(self, latents: Tensor) -> Tensor:
        scale, shift = self._config.scaling_factor, self._config.shift_factor
        return latents / scale + shift if shift else latents / scale


class VaeImages:
    """A VAE behind the network's latents."""

    def __init__(self, vae: Any, scale: LatentScale):
        self._vae, self.scale = vae, scale

    def encode(self, images: Tensor) -> Latents:
        """Images (B, H, W, 3) in 0…1 → latents in float32.

        Raises:
            ConfigError: sides that the VAE and the network do not divide.
        """
        height, width = images.shape[1:3]
        if height % self.scale.multiple or width % self.scale.multiple:
            expected = f"photos of a size that {self.scale.multiple} divides"
            raise ConfigError(expected, f"{width} × {height}", "Change the resolution.")
        with self._exact() as vae:
            pixels = (images.movedim(-1, 1).float() * 2 - 1).to(vae.device)
            posteriors = [vae.encode(image[None]).latent_dist for image in pixels]
        mean, std = (torch.cat([getattr(posterior, part) for posterior in posteriors]) for part in ("mean", "std"))
        return self.scale.into(mean, std)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, c, h, w) → images (B, H, W, 3) in 0…1 on the CPU."""
        with self._exact() as vae:
            return self._decode(vae, latents, again=False).cpu()

    def decode_with_gradients(self, latents: Tensor, again: bool) -> Tensor:
        """`decode` on the device, differentiable in the latents.

        Args:
            again: compute inner values again in the backward pass.
        """
        return self._decode(self._lasting, latents, again and torch.is_grad_enabled())

    def _decode(self, vae: Any, latents: Tensor, again: bool) -> Tensor:
        def decode(latent: Tensor) -> Tensor:
            return vae.decode(self.scale.out(latent)).sample

        together = max(1, DECODED_PIXELS // (latents.shape[2:].numel() * self.scale.factor**2))
        parts = latents.split(together)
        pixels = [checkpoint(decode, part, use_reentrant=False) if again else decode(part) for part in parts]
        return (torch.cat(pixels).movedim(1, -1) / 2 + 0.5).clamp(0, 1)

    @cached_property
    def _lasting(self) -> Any:
        """The VAE in single precision, kept: the backward pass comes after `_exact` has ended."""
        return self._vae if self._vae.dtype == torch.float32 else deepcopy(self._vae).to(torch.float32)

    @contextmanager
    def _exact(self) -> Iterator[Any]:
        """The VAE in single precision: SDXL's overflows in half."""
        vae, dtype = self._vae, self._vae.dtype
        torch.nn.Module.to(vae, torch.float32)
        try:
            yield vae
        finally:
            torch.nn.Module.to(vae, dtype)
