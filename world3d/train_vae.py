"""Train the world's VAE on its pictures:  python -m world3d.train_vae --pictures work/world

It begins with the drawn world's VAE, which has the same layout, and goes on from its own last state.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from miniature.images import to_signed
from miniature.losses import vae_loss
from miniature.training import Plan, Run
from miniature.world import BASE

from .album import load_pictures
from .models import LATENT_CHANNELS, LATENT_SIZE
from .scenes import SIZE

BATCH = 8
RATE = 1e-3  # at 2e-3 it ends in pictures of one colour
MEASURED = 512  # pictures, whose latents' spread becomes the scaling factor


@click.command()
@click.option("--pictures", "source", type=click.Path(path_type=Path), required=True, help="Folder of the pictures.")
@click.option("--start", type=click.Path(path_type=Path), default=BASE / "vae", help="A VAE to begin with.")
@click.option("--steps", type=int, default=4000, help="Steps to train for.")
@click.option("--work", type=click.Path(path_type=Path), default=Path("work/vae"), help="Folder for the state.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("work/vae/vae"), help="Folder for the VAE.")
@click.option("--seed", type=int, default=0)
def main(source: Path, start: Path, steps: int, work: Path, output: Path, seed: int) -> None:
    torch.manual_seed(seed)
    vae = AutoencoderKL.from_pretrained(start, local_files_only=True).float()
    vae.register_to_config(_name_or_path="", sample_size=SIZE)  # no path of this machine in what is saved
    groups = [{"params": list(vae.parameters()), "lr": RATE}]
    run = Run(work, {"vae": vae}, groups, Plan(steps, seed, decay=0.7))
    pictures = load_pictures(source)
    for _ in run.steps():
        batch = _batch(pictures, BATCH, run.generator)
        noise = torch.randn(BATCH, LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE, generator=run.generator)
        run.step(vae_loss(vae, batch, noise))
    trained = run.averages["vae"]
    with torch.no_grad():
        measured = _batch(pictures, MEASURED, run.generator).split(32)
        latents = torch.cat([trained.encode(batch).latent_dist.mode() for batch in measured])
    trained.register_to_config(scaling_factor=round(1 / latents.std().item(), 5))
    trained.save_pretrained(output)


def _batch(pictures: np.ndarray, count: int, generator: torch.Generator) -> Tensor:
    """Pictures (B, 3, S, S) in −1…1, half of them mirrored."""
    chosen = torch.randint(len(pictures), (count,), generator=generator)
    batch = to_signed(pictures[np.sort(chosen.numpy())])
    mirrored = torch.rand(count, 1, 1, 1, generator=generator) < 0.5
    return torch.where(mirrored, batch.flip(3), batch)


if __name__ == "__main__":
    main()
