"""Noise schedules: how an image and noise are mixed, and what a network answers to the mixture.

Symbols: `x` image (its latents), `ε` noise, `z` noisy image, `T` timesteps, `ᾱ` a timestep's share of signal power,
`σ` a flow's share of noise. A noise level is a timestep, or σ.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

DISCRETE = ("eps", "v")
"""What a network on a `DiscreteSchedule` predicts: the noise, or the velocity."""
FLOW = "flow"
"""What a network on a `FlowSchedule` predicts: noise minus image."""
_LEAST = 1e-3  # u of a flow keeps this distance to 0 and 1, where the prediction divides by σ


class Schedule(Protocol):
    """What training and sampling ask of a base model's noise. Samples (B, c, h, w), noise levels (B,)."""

    @property
    def prediction(self) -> str:
        """What the network predicts, as files have it."""

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Noise levels (count,) of a training, on the CPU."""

    def levels(self, steps: int) -> Tensor:
        """Noise levels (steps + 1,) of a sampling, from pure noise to the last one, on the CPU."""

    def add_noise(self, latents: Tensor, noise: Tensor, levels: Tensor, /) -> Tensor:
        """The network's input."""

    def target(self, latents: Tensor, noise: Tensor, levels: Tensor, /) -> Tensor:
        """The output of a perfect network."""

    def split(self, noisy: Tensor, output: Tensor, levels: Tensor, /) -> tuple[Tensor, Tensor]:
        """The image and the noise that `noisy` is made of, if `output` is right about it."""

    def log_ratio(self, levels: Tensor) -> Tensor:
        """``λ = log(signal / noise)`` of noise levels, in double precision on the CPU (arXiv 2211.01095, section 2)."""

    def min_snr(self, levels: Tensor, gamma: float, scale: float) -> Tensor:
        """Weight (B,) of the squared error at each noise level; on the CPU, as the levels are."""


@dataclass(frozen=True, eq=False)
class DiscreteSchedule:
    """Variance-preserving diffusion in discrete steps (DDPM, arXiv 2006.11239)."""

    alphas_cumprod: Tensor  # ᾱ (T,), best on the samples' device
    prediction: str  # one of `DISCRETE`

    @property
    def num_timesteps(self) -> int:
        """T."""
        return len(self.alphas_cumprod)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randint(self.num_timesteps, (count,), generator=generator)

    def levels(self, steps: int) -> Tensor:
        return torch.linspace(self.num_timesteps - 1, 0, steps + 1).round().long()

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

    def log_ratio(self, timesteps: Tensor) -> Tensor:
        return self.snr[timesteps].double().log() / 2

    @cached_property
    def snr(self) -> Tensor:
        """``ᾱ / (1 − ᾱ)`` (T,) on the CPU (arXiv 2303.09556, section 3.1)."""
        power = (self.alphas_cumprod**0.5).square().cpu()  # of the signal, rounded as in `add_noise`
        return power / (1 - power).clamp(min=1e-8)

    def min_snr(self, timesteps: Tensor, gamma: float, scale: float) -> Tensor:
        """Weight (B,) by which the image's error counts ``min(scale · SNR, γ)`` (arXiv 2303.09556, section 3.4).

        The squared error of ε is SNR times the image's, that of v is SNR + 1 times the image's.
        """
        snr = self.snr[timesteps]
        return (scale * snr).clamp(max=gamma) / (snr if self.prediction == "eps" else snr + 1).clamp(min=1e-8)

    def _factors(self, samples: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """√ᾱ and √(1 − ᾱ), (B, 1, 1, 1), in the samples' precision."""
        alphas = self.alphas_cumprod.to(samples)[timesteps].view(-1, *[1] * (samples.ndim - 1))
        return alphas**0.5, (1 - alphas) ** 0.5


@dataclass(frozen=True)
class FlowSchedule:
    """Rectified flow (arXiv 2209.03003) with the shift of arXiv 2403.03206, section 5.3.2.

    Attributes:
        shift: how much more noise a model expects than a straight line in time has; 1: as much.
    """

    shift: float
    prediction: str = FLOW

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """σ of a logit-normal time (arXiv 2403.03206, section 3.1)."""
        return self._sigma(torch.randn(count, generator=generator).sigmoid().clamp(_LEAST, 1 - _LEAST))

    def levels(self, steps: int) -> Tensor:
        return self._sigma(torch.linspace(1, 0, steps + 1))

    def add_noise(self, latents: Tensor, noise: Tensor, sigmas: Tensor) -> Tensor:
        """``z = (1 − σ) x + σ ε``."""
        sigma = _column(sigmas, latents)
        return (1 - sigma) * latents + sigma * noise

    def target(self, latents: Tensor, noise: Tensor, _sigmas: Tensor) -> Tensor:
        """``ε − x``."""
        return noise - latents

    def split(self, noisy: Tensor, output: Tensor, sigmas: Tensor) -> tuple[Tensor, Tensor]:
        """``x = z − σ v``, ``ε = z + (1 − σ) v``. A step between two levels is then Euler's."""
        sigma = _column(sigmas, noisy)
        return noisy - sigma * output, noisy + (1 - sigma) * output

    def log_ratio(self, sigmas: Tensor) -> Tensor:
        sigmas = sigmas.double()
        return ((1 - sigmas) / sigmas).log()

    def min_snr(self, sigmas: Tensor, gamma: float, scale: float) -> Tensor:
        """As `DiscreteSchedule.min_snr`, with SNR ``((1 − σ) / σ)²``. The image's squared error is σ² times v's."""
        snr = ((1 - sigmas) / sigmas).square()
        return (scale * snr).clamp(max=gamma) * sigmas.square()

    def _sigma(self, time: Tensor) -> Tensor:
        """``σ = s u / (1 + (s − 1) u)``."""
        return self.shift * time / (1 + (self.shift - 1) * time)


def _column(levels: Tensor, like: Tensor) -> Tensor:
    """Levels (B,) as (B, 1, …), in the precision of samples."""
    return levels.to(like).view(-1, *[1] * (like.ndim - 1))
