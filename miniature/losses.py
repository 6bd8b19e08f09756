"""What a world's VAE and base model are trained by."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn.functional import l1_loss, mse_loss

from idea_core.headless.diffusers.schedule import stable_diffusion_schedule

from . import processes
from .training import half_precision

KL_WEIGHT = 1e-6  # at 1e-5 the posterior is a quarter as wide as the latents, which blurs small features
SNR_GAMMA = 2.0  # min-SNR (arXiv 2303.09556): with the plain loss, backgrounds are learned and people are not
SNR_SCALE = 5.0  # upper bound of the weights: the noisiest steps, which decide what an image shows, weigh more
LATE, LATE_FROM = 0.5, 300  # share of the timesteps that are sampled from LATE_FROM on


def vae_loss(vae: AutoencoderKL, pictures: Tensor, noise: Tensor) -> Tensor:
    """Error of images (B, 3, H, W) in −1…1 after the VAE, of their edges, and the posteriors' divergence from N(0, 1).

    Args:
        noise: of the posteriors, (B, 4, h, w).
    """
    with torch.autocast("cpu", torch.bfloat16, enabled=half_precision()):
        posterior = vae.encode(pictures).latent_dist
        rebuilt = vae.decode(posterior.mean + posterior.std * noise).sample.float()
    error = l1_loss(rebuilt, pictures) + mse_loss(rebuilt, pictures)
    edges = sum(l1_loss(rebuilt.diff(dim=dim), pictures.diff(dim=dim)) for dim in (2, 3))
    return error + edges + KL_WEIGHT * posterior.kl().float().mean()


class NoiseLoss:
    """Mean squared error of the noise that a UNet predicts, weighted by timestep and by place."""

    def __init__(self, text_encoder, unet):
        self.text_encoder, self.unet, self.half = text_encoder, unet, half_precision()
        self.alphas = stable_diffusion_schedule("eps").alphas_cumprod

    def __call__(self, latents: Tensor, ids: Tensor, emphasis: Tensor, generator: torch.Generator) -> Tensor:
        """The loss of latents (B, 4, h, w) with captions (B, L); `emphasis` (B, h, w) or (h, w) weighs places."""
        count = len(latents)
        noise = torch.randn(latents.shape, generator=generator)
        anywhere = torch.randint(len(self.alphas), (count,), generator=generator)
        late = torch.randint(LATE_FROM, len(self.alphas), (count,), generator=generator)
        timesteps = torch.where(torch.rand(count, generator=generator) < LATE, late, anywhere)
        emphasis = emphasis.expand(count, *latents.shape[2:])
        latents, ids, noise, timesteps, emphasis = processes.part(latents, ids, noise, timesteps, emphasis)
        alpha = self.alphas[timesteps].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            context = self.text_encoder(ids).last_hidden_state
            output = self.unet(noisy, timesteps, context.float(), return_dict=False)[0]
        weight = (SNR_GAMMA * (1 - alpha) / alpha).clamp(max=SNR_SCALE).view(-1)  # min(SNR_SCALE · SNR, γ) / SNR
        error = (output.float() - noise).square().mean(1) * emphasis
        return (error.mean((1, 2)) * weight).mean()
