"""Pictures of all named people on disk:  python -m world3d.pictures --output work/world

It goes on where it was stopped.  Round after round, each person gets a few pictures more, so that a training may
begin with the first round.
"""

from __future__ import annotations

import os
from pathlib import Path

import click
import numpy as np

from .people import named_people
from .picture import SIZE, picture, prepare
from .scenes import Scene, draw_scene

ROUNDS, EACH = 4, 25  # pictures of each person in a round
SEED = 99
FILE, PROGRESS = "pictures.npy", "pictures.done"


@click.command()
@click.option("--output", type=click.Path(path_type=Path), default=Path("work/world"), help="Folder for the pictures.")
def main(output: Path) -> None:
    people = named_people()
    output.mkdir(parents=True, exist_ok=True)
    shape = (ROUNDS * len(people) * EACH, SIZE, SIZE, 3)
    mode = "r+" if (output / FILE).exists() else "w+"
    pictures = np.lib.format.open_memmap(output / FILE, mode, np.uint8, shape)
    for job in range(finished(output) // EACH, ROUNDS * len(people)):
        portrait = prepare(people[job % len(people)].person)
        for number in range(job * EACH, (job + 1) * EACH):
            pictures[number] = picture(portrait, scene_of(number))
        pictures.flush()
        _tell(output, (job + 1) * EACH)


def person_of(number: int) -> int:
    """Which of the named people picture `number` shows."""
    return number // EACH % len(named_people())


def scene_of(number: int) -> Scene:
    return draw_scene(np.random.default_rng([SEED, number]))


def finished(folder: Path) -> int:
    """How many pictures are done."""
    file = folder / PROGRESS
    return int(file.read_text("utf-8")) if file.exists() else 0


def load_pictures(folder: Path) -> np.ndarray:
    """The pictures (N, S, S, 3) that are done, as a read-only map of the file.

    Raises:
        FileNotFoundError: there are none.
    """
    count = finished(folder)
    if not count:
        raise FileNotFoundError(f"expected pictures in {folder}, got none; run: python -m world3d.pictures")
    return np.load(folder / FILE, mmap_mode="r")[:count]


def _tell(folder: Path, count: int) -> None:
    (folder / "pictures.part").write_text(str(count), "utf-8")
    os.replace(folder / "pictures.part", folder / PROGRESS)


if __name__ == "__main__":
    main()
