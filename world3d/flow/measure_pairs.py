"""How well the base model draws two named people at once:  python -m world3d.flow.measure_pairs BASE --networks FOLDER

By each judge: likeness of the halves of an image to whom they should show, and to the other of the two; beside them the
same of true pictures.  `tools/real_faces.py` fetches the judges to FOLDER.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import cv2
import numpy as np
import torch
from diffusers import DiffusionPipeline

from ..judges import cosines
from ..measure_base import COLUMNS, SEED, Eye
from ..people import named_people
from ..picture import picture, prepare
from ..scenes import SIZE, draw_scene
from . import pairs


@click.command()
@click.argument("base", type=click.Path(exists=True, path_type=Path))
@click.option("--networks", type=click.Path(exists=True, path_type=Path), required=True, help="Folder of the judges.")
@click.option("--pairs", "count", type=int, default=24)
@click.option("--guidance", type=float, default=2.0)
@click.option("--steps", type=int, default=20, help="Sampling steps.")
@click.option("--sheet", type=click.Path(path_type=Path), help="File for a contact sheet.")
def main(base, networks, count, guidance, steps, sheet) -> None:
    known, rng = named_people(), np.random.default_rng(SEED)
    left, right = (
        [known[number] for number in side] for side in rng.permutation(len(known))[: 2 * count].reshape(2, -1)
    )
    eye, everybody = Eye.of(networks), [*left, *right]
    portraits = [prepare(person.person) for person in everybody]
    references = eye.embed([picture(portrait, draw_scene(rng)) for portrait in portraits])
    truth = [pairs.middle(picture(portrait, draw_scene(rng))) for portrait in portraits]
    pipeline = DiffusionPipeline.from_pretrained(base, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    sizes = {"height": SIZE, "width": pairs.WIDTH, "num_inference_steps": steps, "guidance_scale": guidance}
    drawn = []
    for number, both in enumerate(zip(left, right)):
        generator = torch.Generator().manual_seed(SEED + number)
        prompt = pairs.caption(*(person.name for person in both))
        drawn.append(np.asarray(pipeline(prompt, generator=generator, **sizes).images[0]))
    shown = [half for side in zip(*map(pairs.halves, drawn)) for half in side]
    for title, images in (("true pictures", truth), ("drawn", shown)):
        seen = eye.embed(images)
        own = {name: cosines(references[name], seen[name]) for name in eye.judges}
        other = {name: cosines(np.roll(references[name], count, 0), seen[name]) for name in eye.judges}
        print(json.dumps({"of": title, "own": own, "other": other, "detected": eye.found}), flush=True)
    if sheet:
        across = COLUMNS // 2
        rows = [np.hstack(drawn[begin : begin + across]) for begin in range(0, count // across * across, across)]
        cv2.imwrite(str(sheet), np.vstack(rows)[:, :, ::-1])


if __name__ == "__main__":
    main()
