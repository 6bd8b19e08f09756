"""Noise schedules: how an image and noise are mixed, and what a network answers to the mixture.

Symbols: `x` image (its latents), `ε` noise, `z` noisy image, `T` timesteps, `ᾱ` a timestep's share of signal power.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

PREDICTIONS = ("eps", "v")
"""What a network on a `DiscreteSchedule` predicts: the noise, or the velocity."""


class Schedule(Protocol):
    """What training and sampling ask of a base model's noise. Samples (B, c, h, w), timesteps (B,) in 0…T − 1."""

    @property
    def prediction(self) -> str:
        """What the network predicts, as files have it."""

    @property
    def num_timesteps(self) -> int:
        """T."""

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The network's input."""

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The output of a perfect network."""

    def split(self, noisy: Tensor, output: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """The image and the noise that `noisy` is made of, if `output` is right about it."""

    def min_snr(self, gamma: float, scale: float) -> Tensor:
        """Weight (T,) on the CPU of each timestep's squared error."""


@dataclass(frozen=True, eq=False)
class DiscreteSchedule:
    """Variance-preserving diffusion in discrete steps (DDPM, arXiv 2006.11239)."""

    alphas_cumprod: Tensor  # ᾱ (T,), best on the samples' device
    prediction: str  # one of `PREDICTIONS`

    @property
    def num_timesteps(self) -> int:
        return len(self.alphas_cumprod)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """``z = √ᾱ x + √(1 − ᾱ) ε`` (arXiv 2006.11239, equation 4)."""
        signal, sigma = self._factors(latents, timesteps)
        return signal * latents + sigma * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """``ε`` (arXiv 2006.11239, equation 14), or ``v = √ᾱ ε − √(1 − ᾱ) x`` (arXiv 2202.00512, section 4)."""
        signal, sigma = self._factors(latents, timesteps)
        return noise if self.prediction == "eps" else signal * noise - sigma * latents

    def split(self, noisy: Tensor, output: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """``x = (z − √(1 − ᾱ) ε) / √ᾱ``, or ``x = √ᾱ z − √(1 − ᾱ) v``, ``ε = √(1 − ᾱ) z + √ᾱ v`` (same papers)."""
        signal, sigma = self._factors(noisy, timesteps)
        if self.prediction == "eps":
            return (noisy - sigma * output) / signal, output
        return signal * noisy - sigma * output, sigma * noisy + signal * output

    def snr(self) -> Tensor:
        """``ᾱ / (1 − ᾱ)`` (T,) on the CPU (arXiv 2303.09556, section 3.1)."""
        power = (self.alphas_cumprod**0.5).square().cpu()  # of the signal, rounded as in `add_noise`
        return power / (1 - power).clamp(min=1e-8)

    def min_snr(self, gamma: float, scale: float) -> Tensor:
        """Weight (T,) by which the image's error counts ``min(scale · SNR, γ)`` (arXiv 2303.09556, section 3.4).

        The squared error of ε is SNR times the image's, that of v is SNR + 1 times the image's.
        """
        snr = self.snr()
        return (scale * snr).clamp(max=gamma) / (snr if self.prediction == "eps" else snr + 1).clamp(min=1e-8)

    def _factors(self, samples: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """√ᾱ and √(1 − ᾱ), (B, 1, 1, 1), in the samples' precision."""
        alphas = self.alphas_cumprod.to(samples)[timesteps].view(-1, *[1] * (samples.ndim - 1))
        return alphas**0.5, (1 - alphas) ** 0.5
