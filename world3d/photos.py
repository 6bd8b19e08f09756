"""Folders of people whom no model has seen, as `idea compare` reads them:  python -m world3d.photos work/people

Each folder holds photos with a note beside each, other true images in `references/`, and prompts.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import click
import cv2
import numpy as np

from idea_core.headless.jobs.people import PROMPTS, REFERENCES, SETTINGS
from idea_core.text.captions import PLACEHOLDER

from .people import HELD_OUT_PEOPLE, held_out_people
from .picture import picture, prepare
from .scenes import ASKED, Scene, draw_scene
from .somebody import TRUE

SEED = 31


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--people", "count", type=click.IntRange(1, HELD_OUT_PEOPLE), default=32)
@click.option("--photos", type=click.IntRange(1), default=4, help="To train on, of each person.")
@click.option("--references", type=click.IntRange(1), default=8, help="Other true images of each person.")
@click.option("--prompts", type=click.IntRange(1), default=6)
@click.option("--names", help="Names of the folders, comma-separated; otherwise person00, person01 …")
@click.option("--only", help="Numbers of people, comma-separated; otherwise from the first on.")
@click.option("--true", "true_images", type=click.IntRange(0), default=0, help="True images of each prompt.")
def main(folder: Path, count: int, names: str | None, only: str | None, **counts: int) -> None:
    people, numbers = held_out_people(), list(map(int, only.split(","))) if only else range(count)
    called = names.split(",") if names else [f"person{number:02}" for number in numbers]
    for name, number in zip(called, numbers, strict=True):
        write_person(folder / name, number, people[number], Counts(**counts))


class Counts(NamedTuple):
    """How many images and prompts a person has; `true_images` are of each prompt."""

    photos: int = 4
    references: int = 8
    prompts: int = 6
    true_images: int = 0


def write_person(folder: Path, number: int, person, counts: Counts) -> None:
    """Write the folder of a person."""
    portrait, rng = prepare(person), np.random.default_rng([SEED, number])
    own, others, asked = ([draw_scene(rng) for _ in range(count)] for count in counts[:3])
    (folder / REFERENCES).mkdir(parents=True, exist_ok=True)
    for place, scene in enumerate(own):
        _write(folder / f"photo{place}.jpg", picture(portrait, scene))
        note = scene.caption("").removeprefix("a photo of , ")
        (folder / f"photo{place}.txt").write_text(note, "utf-8")
    for place, scene in enumerate(others):
        _write(folder / REFERENCES / f"{place}.jpg", picture(portrait, scene))
    said = [scene.caption(PLACEHOLDER) for scene in asked]
    (folder / PROMPTS).write_text("\n".join(said), "utf-8")
    (folder / SETTINGS).write_text(json.dumps({"seed": number}), "utf-8")
    again = [again_from(scene, rng) for scene in asked for _ in range(counts.true_images)]
    for place, scene in enumerate(again):
        (folder / TRUE).mkdir(exist_ok=True)
        _write(folder / TRUE / f"{place:02}.jpg", picture(portrait, scene))


def again_from(scene: Scene, rng: np.random.Generator) -> Scene:
    """Another scene with the same caption."""
    return replace(draw_scene(rng), **{key: getattr(scene, key) for key in ASKED})


def _write(path: Path, image: np.ndarray) -> None:
    quality = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    cv2.imwrite(str(path), image[:, :, ::-1], quality)


if __name__ == "__main__":
    main()
