"""Train the world's VAE on drawn images:  python -m miniature.train_vae --steps 7000

It resumes from its last checkpoint.
"""

from __future__ import annotations

from pathlib import Path

import click
import torch
from torch import Tensor

from .losses import vae_loss
from .models import LATENT_CHANNELS, LATENT_SIZE, build_vae
from .people import PARAMETERS
from .render import render
from .scenes import draw_scenes
from .training import PACE, WORK, Plan, Run

BATCH = 16
LR = 1e-3  # at 2e-3 it ends in images of one colour


@click.command()
@click.option("--steps", type=int, default=7000, help="Steps to train for.")
@click.option("--work", type=click.Path(path_type=Path), default=WORK / "vae", help="Folder for checkpoints.")
@click.option("--output", type=click.Path(path_type=Path), default=WORK / "vae/vae", help="Folder for the VAE.")
@click.option("--seed", type=int, default=0)
def main(steps: int, work: Path, output: Path, seed: int) -> None:
    torch.manual_seed(seed)
    vae = build_vae()
    run = Run(work, {"vae": vae}, [{"params": list(vae.parameters()), "lr": LR}], Plan(steps, seed, **PACE))
    for _ in run.steps():
        pictures = _pictures(BATCH, run.generator)
        noise = torch.randn(BATCH, LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE, generator=run.generator)
        run.step(vae_loss(vae, pictures, noise))
    trained = run.averages["vae"]
    with torch.no_grad():
        latents = torch.cat([trained.encode(_pictures(64, run.generator)).latent_dist.mode() for _ in range(8)])
    trained.register_to_config(scaling_factor=round(1 / latents.std().item(), 5))
    trained.save_pretrained(output)


def _pictures(count: int, generator: torch.Generator) -> Tensor:
    """Images (B, 3, S, S) in −1…1 of new people."""
    faces = torch.randn(count, len(PARAMETERS), generator=generator)
    return render(faces, draw_scenes(count, generator), generator) * 2 - 1


if __name__ == "__main__":
    main()
