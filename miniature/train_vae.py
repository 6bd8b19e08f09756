"""Train the world's VAE on drawn images:  python -m miniature.train_vae --steps 7000

It resumes from its last checkpoint.
"""

from __future__ import annotations

from pathlib import Path

import click
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn.functional import l1_loss, mse_loss

from .models import LATENT_CHANNELS, LATENT_SIZE, build_vae
from .people import PARAMETERS
from .render import render
from .scenes import draw_scenes
from .training import Run

KL_WEIGHT = 1e-6  # at 1e-5 the posterior is a quarter as wide as the latents, which blurs small features
BATCH = 16
LR = 1e-3  # at 2e-3 it ends in images of one colour


@click.command()
@click.option("--steps", type=int, default=7000, help="Steps to train for.")
@click.option("--work", type=click.Path(path_type=Path), default=Path("work/vae"), help="Folder for checkpoints.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("work/vae/vae"), help="Folder for the VAE.")
@click.option("--seed", type=int, default=0)
def main(steps: int, work: Path, output: Path, seed: int) -> None:
    torch.manual_seed(seed)
    vae = build_vae()
    run = Run(work, {"vae": vae}, [{"params": list(vae.parameters()), "lr": LR}], steps, seed)
    for _ in run.steps():
        pictures = _pictures(BATCH, run.generator)
        noise = torch.randn(BATCH, LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE, generator=run.generator)
        with torch.autocast("cpu", torch.bfloat16):
            rebuilt, divergence = _rebuild(vae, pictures, noise)
        error = l1_loss(rebuilt, pictures) + mse_loss(rebuilt, pictures)
        edges = sum(l1_loss(rebuilt.diff(dim=dim), pictures.diff(dim=dim)) for dim in (2, 3))
        run.step(error + edges + KL_WEIGHT * divergence)
    run.finish()
    trained = run.averages["vae"]
    with torch.no_grad():
        latents = torch.cat([trained.encode(_pictures(64, run.generator)).latent_dist.mode() for _ in range(8)])
    trained.register_to_config(scaling_factor=round(1 / latents.std().item(), 5))
    trained.save_pretrained(output)


def _rebuild(vae: AutoencoderKL, pictures: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Images after the VAE, and the mean KL divergence of their posteriors from N(0, 1), in nats per image."""
    posterior = vae.encode(pictures).latent_dist
    latents = posterior.mean + posterior.std * noise
    return vae.decode(latents).sample.float(), posterior.kl().float().mean()


def _pictures(count: int, generator: torch.Generator) -> Tensor:
    """Images (B, 3, S, S) in −1…1 of new people."""
    faces = torch.randn(count, len(PARAMETERS), generator=generator)
    return render(faces, draw_scenes(count, generator), generator) * 2 - 1


if __name__ == "__main__":
    main()
