"""Train the world's VAE on drawn pictures:  python -m miniature.train_vae --minutes 12

It goes on from its own last checkpoint.
"""

from __future__ import annotations

from pathlib import Path

import click
import torch
from torch.nn.functional import l1_loss, mse_loss

from .models import build_vae
from .people import PARAMETERS
from .render import render
from .scenes import draw_scenes
from .training import Run

KL_WEIGHT = 1e-6  # at 1e-5 the posterior is a quarter as wide as the latents, which blurs small features
BATCH = 16
RATE = 2e-3


@click.command()
@click.option("--minutes", type=float, default=12.0, help="Time to train for.")
@click.option("--work", type=click.Path(path_type=Path), default=Path("work/vae"), help="Folder for checkpoints.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("work/vae/vae"), help="Folder for the VAE.")
@click.option("--seed", type=int, default=0)
def main(minutes: float, work: Path, output: Path, seed: int) -> None:
    torch.manual_seed(seed)
    vae = build_vae().to(memory_format=torch.channels_last)
    run = Run(work, {"vae": vae}, [{"params": list(vae.parameters()), "lr": RATE}], minutes, seed)
    for _ in run.steps():
        pictures = _pictures(BATCH, run.generator)
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(pictures).latent_dist
            rebuilt = vae.decode(posterior.sample(run.generator)).sample
        rebuilt = rebuilt.float()
        run.step(l1_loss(rebuilt, pictures) + mse_loss(rebuilt, pictures) + KL_WEIGHT * posterior.kl().mean())
    run.finish()
    trained = run.averages["vae"]
    with torch.no_grad():
        latents = torch.cat([trained.encode(_pictures(64, run.generator)).latent_dist.mode() for _ in range(8)])
    trained.register_to_config(scaling_factor=round(1 / latents.std().item(), 5))
    trained.save_pretrained(output)


def _pictures(count: int, generator: torch.Generator) -> torch.Tensor:
    """Pictures (B, 3, S, S) in −1…1 of new people."""
    faces = torch.randn(count, len(PARAMETERS), generator=generator)
    pictures = render(faces, draw_scenes(count, generator), generator) * 2 - 1
    return pictures.contiguous(memory_format=torch.channels_last)


if __name__ == "__main__":
    main()
