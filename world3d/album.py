"""The named people's pictures on disk, and what each shows; `pictures.py` draws them.

Picture `number` always shows the same person in the same scene.  Round after round, each person gets some more.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from .names import NAMED_PEOPLE
from .scenes import SIZE, Scene, draw_scene

ROUNDS, EACH = 4, 25  # pictures of each person in a round
COUNT = ROUNDS * NAMED_PEOPLE * EACH
SEED = 99
FILE, PROGRESS = "pictures.npy", "pictures.done"


def person_of(number: int) -> int:
    """Which of the named people picture `number` shows."""
    return number // EACH % NAMED_PEOPLE


def scene_of(number: int) -> Scene:
    return draw_scene(np.random.default_rng([SEED, number]))


def open_pictures(folder: Path) -> np.memmap:
    """All pictures (COUNT, S, S, 3) of bytes, to be written to."""
    folder.mkdir(parents=True, exist_ok=True)
    mode = "r+" if (folder / FILE).exists() else "w+"
    return np.lib.format.open_memmap(folder / FILE, mode, np.uint8, (COUNT, SIZE, SIZE, 3))


def load_pictures(folder: Path) -> np.ndarray:
    """The pictures (N, S, S, 3) that are done, as a read-only map of the file.

    Raises:
        FileNotFoundError: there are none.
    """
    count = finished(folder)
    if not count:
        raise FileNotFoundError(f"expected pictures in {folder}, got none; run: python -m world3d.pictures")
    return np.load(folder / FILE, mmap_mode="r")[:count]


def finished(folder: Path) -> int:
    """How many pictures are done."""
    file = folder / PROGRESS
    return int(file.read_text("utf-8")) if file.exists() else 0


def tell_finished(folder: Path, count: int) -> None:
    (folder / "pictures.part").write_text(str(count), "utf-8")
    os.replace(folder / "pictures.part", folder / PROGRESS)
