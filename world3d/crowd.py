"""Pictures of nameless people, for what must know faces in general:  python -m world3d.crowd --output work/crowd

It goes on where it was stopped.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from .album import finished, tell_finished
from .people import other_people
from .picture import keypoints, picture, prepare
from .scenes import SIZE, Scene, draw_scene

PEOPLE, EACH = 1600, 8
SEED = 77
PICTURES, POINTS = "pictures.npy", "keypoints.npy"


@click.command()
@click.option("--output", type=click.Path(path_type=Path), default=Path("work/crowd"), help="Folder for the pictures.")
@click.option("--people", "count", type=int, default=PEOPLE)
def main(output: Path, count: int) -> None:
    pictures = _open(output / PICTURES, (count * EACH, SIZE, SIZE, 3), np.uint8)
    points = _open(output / POINTS, (count * EACH, 5, 2), np.float32)
    people = other_people(count)
    for number in range(finished(output) // EACH, count):
        portrait = prepare(people[number])
        for row, scene in enumerate(scenes_of(number), number * EACH):
            pictures[row], points[row] = picture(portrait, scene), keypoints(portrait, scene)
        tell_finished(output, (number + 1) * EACH)


def scenes_of(number: int) -> list[Scene]:
    """The scenes of a person's `EACH` pictures."""
    rng = np.random.default_rng([SEED, number])
    return [draw_scene(rng) for _ in range(EACH)]


def load_crowd(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The pictures (N, S, S, 3) of bytes that are done, and key points (N, 5, 2); `EACH` of each person in a row.

    Raises:
        FileNotFoundError: there are none.
    """
    count = finished(folder)
    if not count:
        raise FileNotFoundError(f"expected pictures in {folder}, got none; run: python -m world3d.crowd")
    return tuple(np.load(folder / file, mmap_mode="r")[:count] for file in (PICTURES, POINTS))


def _open(file: Path, shape: tuple[int, ...], kind: type) -> np.memmap:
    file.parent.mkdir(parents=True, exist_ok=True)
    return np.lib.format.open_memmap(file, "r+" if file.exists() else "w+", kind, shape)


if __name__ == "__main__":
    main()
