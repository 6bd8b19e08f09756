"""Whether the VAE keeps a face for a real recogniser:  python -m world3d.measure_vae VAE --faces PACK

It is measured on people who are in none of its pictures.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np
import torch
from diffusers import AutoencoderKL

from miniature.images import to_signed

from .judges import PackJudge, cosines, verification
from .measure_base import Eye, write_sheet
from .train_judge import held_out_pictures

EACH = 4  # pictures of each person


@click.command()
@click.argument("vae", type=click.Path(exists=True, path_type=Path))
@click.option("--faces", type=click.Path(exists=True, path_type=Path), required=True, help="A face model pack.")
@click.option("--sheet", type=click.Path(path_type=Path), help="File for a contact sheet: pictures, then rebuilt ones.")
@torch.no_grad()
def main(vae: Path, faces: Path, sheet: Path | None) -> None:
    net = AutoencoderKL.from_pretrained(vae, local_files_only=True).float()
    truth, _ = held_out_pictures(EACH)
    parts = to_signed(truth).split(32)
    rebuilt = torch.cat([net.decode(net.encode(part).latent_dist.mode()).sample.clamp(-1, 1) for part in parts])
    seen = ((rebuilt + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    eye = Eye({"pack": PackJudge(faces)})
    first, second = (eye.embed(list(pictures))["pack"] for pictures in (truth, seen))
    found = np.isfinite(first[:, 0]) & np.isfinite(second[:, 0])
    who = np.repeat(np.arange(len(truth) // EACH), EACH)[found]
    result = {
        "difference of 1": round(float((rebuilt - to_signed(truth)).abs().mean()) / 2, 4),
        "faces in both": round(float(found.mean()), 4),
        "picture and reconstruction": cosines(first[found], second[found]),
        "pictures": verification(first[found], who),
        "reconstructions": verification(second[found], who),
    }
    print(json.dumps(result, indent=1))
    if sheet:
        write_sheet([list(truth[::EACH]), list(seen[::EACH])], sheet)


if __name__ == "__main__":
    main()
