"""Photos from disk."""

from __future__ import annotations

import math
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


def fit(photo: np.ndarray, width: int, height: int) -> np.ndarray:
    """The largest middle part of a photo that has the shape asked for, scaled to (height, width, 3)."""
    picture = Image.fromarray(photo)
    return np.asarray(ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS))


def bucket_of(width: int, height: int, resolution: int, step: int = 64) -> tuple[int, int]:
    """Width and height to train a photo at, multiples of `step`: nearly its shape, at most resolution² pixels.

    Shapes beyond 1 : 2 count as 1 : 2. (Aspect-ratio buckets, as Stable Diffusion's fine-tunes are trained.)
    """
    wanted = min(2.0, max(0.5, width / height))
    sizes = [(side, resolution**2 // side // step * step) for side in range(step, 2 * resolution, step)]
    fitting = [(wide, high) for wide, high in sizes if high and 0.5 <= wide / high <= 2] or [(resolution, resolution)]
    return min(fitting, key=lambda size: abs(math.log(size[0] / size[1] / wanted)))
