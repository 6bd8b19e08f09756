"""How well the world's base model draws its named people and follows prompts:  python -m miniature.measure_base

For comparison it prints the similarity of two true images of one person, and of two people.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import torch

from idea_core.headless.diffusers import load_pipeline

from .people import named_people
from .render import render
from .world import (
    BASE,
    GUIDANCE,
    SAMPLING_STEPS,
    cosine,
    draw,
    draw_photos,
    embed,
    largest_faces,
    obeyed,
    rates,
    write_sheet,
)

SEED = 11


@click.command()
@click.option("--base", type=click.Path(path_type=Path), default=BASE)
@click.option("--people", "count", type=int, default=48)
@click.option("--guidance", type=float, multiple=True, default=(GUIDANCE,))
@click.option("--steps", type=int, default=SAMPLING_STEPS)
@click.option("--sheet", type=click.Path(path_type=Path), help="File for a contact sheet: true pictures, then drawn.")
def main(base: Path, count: int, guidance: tuple[float, ...], steps: int, sheet: Path | None) -> None:
    pipeline = load_pipeline(base)
    known, generator = named_people(), torch.Generator().manual_seed(SEED)
    chosen = torch.randperm(len(known.faces), generator=generator)[:count]
    scenes = draw_photos(count, generator)
    # References: the people in the scenes of the prompts, and in others.
    same, other = (render(known.faces[chosen], s, generator) for s in (scenes, draw_photos(count, generator)))
    truth, again = (embed(pictures, largest_faces(pictures)) for pictures in (other, same))
    print(json.dumps({"same person": cosine(truth, again), "another person": cosine(truth, again.roll(1, 0))}))
    names = known.names()
    prompts = [scenes.caption(number, names[person]) for number, person in enumerate(chosen.tolist())]
    for scale in guidance:
        pictures = draw(pipeline, [], prompts, SEED, scale, steps)
        faces = largest_faces(pictures)
        detected = sum(face is not None for face in faces) / count
        result = {"guidance": scale, "identity": cosine(truth, embed(pictures, faces)), "detected": detected}
        print(json.dumps(result | rates(obeyed(pictures, scenes))), flush=True)
    if sheet:
        write_sheet([same, pictures], sheet)


if __name__ == "__main__":
    main()
