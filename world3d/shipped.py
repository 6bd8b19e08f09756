"""The world's models as they are shipped (`miniature.packed`), and where each of them lies."""

from __future__ import annotations

from pathlib import Path

from miniature import packed
from miniature.packed import BASE, ENHANCER

DATA = Path(__file__).parent / "data" / "models"
FACES = "faces"
__all__ = ["BASE", "DATA", "ENHANCER", "FACES", "SECOND", "unpack"]
SECOND = "second.safetensors"  # beside the face models


def unpack(folder: Path) -> Path:
    """Expand the shipped models into a folder; files that are there stay. The folder.

    Raises:
        OSError: a file could not be written.
    """
    return packed.unpack(DATA, folder)
