"""A contact sheet of people whom no model has seen:  python -m world3d.sheet docs/images/world3d.jpg"""

from __future__ import annotations

from pathlib import Path

import click
import cv2
import numpy as np

from .people import HELD_OUT_PEOPLE, held_out_people
from .picture import picture, prepare
from .scenes import draw_scene

SEED, SIDE = 4, 192  # pixels that an image is drawn at; it is shown at two thirds
SHOWN = 127


@click.command()
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--first", type=click.IntRange(0, HELD_OUT_PEOPLE - 1), default=18, help="Number of the first person.")
@click.option("--people", "count", type=int, default=12, help="Columns, one a person.")
@click.option("--rows", type=int, default=3)
def main(output: Path, first: int, count: int, rows: int) -> None:
    rng, columns = np.random.default_rng(SEED), []
    for portrait in map(prepare, held_out_people()[first : first + count]):
        columns.append(np.vstack([picture(portrait, draw_scene(rng), SIDE) for _ in range(rows)]))
    sheet = np.hstack(columns)
    size = (len(columns) * SHOWN, rows * SHOWN)
    small = cv2.resize(sheet, size, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(output), small[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])


if __name__ == "__main__":
    main()
