"""Photos from disk."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import FaceError

ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}


def find_photos(places: Iterable[str | os.PathLike], deep: bool = False) -> list[Path]:
    """Files as they are given, and the pictures in folders by name.

    Args:
        deep: look into the folders' own folders too.

    Raises:
        FaceError: a place that does not exist, or no picture at all.
    """
    places = [Path(place) for place in places]
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            inside = place.rglob("*") if deep else place.iterdir()
            found += sorted(path for path in inside if path.suffix.lower() in ENDINGS and path.is_file())
        elif place.is_file():
            found.append(place)
        else:
            raise FaceError(f"photos at {place}", "nothing there", "Give files or a folder with photos.")
    if not found:
        where = ", ".join(map(str, places)) or "no place"
        kinds = ", ".join(sorted(ENDINGS))
        raise FaceError(f"at least one photo ({kinds})", f"none in {where}", "Give files or a folder with photos.")
    return found


def read_photo(path: str | os.PathLike) -> np.ndarray:
    """A photo (H, W, 3), RGB, uint8, upright as its camera noted; an alpha channel is left out.

    Raises:
        FaceError: not a picture, or a damaged one.
    """
    try:
        with Image.open(path) as photo:
            upright = ImageOps.exif_transpose(photo)
            if upright.mode.startswith("I"):  # 16 bits of grey, which Pillow would cut off at 255
                upright = Image.fromarray((np.asarray(upright) // 256).astype(np.uint8))
            return np.asarray(upright.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise FaceError(f"a picture in {Path(path).name}", f"{error}", "Leave the file out, or save it anew.") from None


def square(photo: np.ndarray, size: int) -> np.ndarray:
    """The middle square of a photo, scaled to (size, size, 3)."""
    height, width = photo.shape[:2]
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    middle = Image.fromarray(photo).crop((left, top, left + side, top + side))
    return np.asarray(middle.resize((size, size), Image.Resampling.LANCZOS))
