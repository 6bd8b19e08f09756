"""Photos from disk."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..errors import FaceError
from .picture_file import left_out, read_photo

logger = logging.getLogger(__name__)

# What systems leave in folders: no photos, and nobody's.
_OF_SYSTEMS = {"thumbs.db", "ehthumbs.db", "desktop.ini", "picasa.ini", "icon\r", "__macosx", "@eadir"}
_CAPTION = ".txt"


def find_photos(places: Iterable[str | os.PathLike], deep: bool = False) -> list[Path]:
    """Files as they are given, and the pictures in folders by name, told by content.

    Hidden files are passed over, and so are captions. The log names all else that is left out, once.

    Args:
        deep: look into the folders' own folders too.

    Raises:
        FaceError: a place that does not exist, or no picture at all.
    """
    places = [Path(place) for place in places]
    photos: list[Path] = []
    without: dict[Path, str] = {}
    for place in places:
        if place.is_dir():
            reasons = {path: left_out(path) for path in _files_in(place, deep)}
            photos += [path for path, reason in reasons.items() if not reason]
            others = {path: reason for path, reason in reasons.items() if reason}
            if others:
                _say_once(f"ID-EA: left out in {place}: {_in_words(others)}")
            without |= others
        elif place.is_file():
            photos.append(place)
        else:
            raise FaceError(f"photos at {place}", "nothing there", "Give files or a folder with photos.")
    if not photos:
        where = ", ".join(map(str, places)) or "no place"
        got = f"none in {where}" + (f", only {_in_words(without)}" if without else "")
        raise FaceError("at least one photo (JPEG, PNG, WebP …)", got, "Give files or a folder with photos.")
    return photos


def read_photos(paths: Iterable[Path], skip: bool = False) -> tuple[list[Path], list[np.ndarray], dict[Path, str]]:
    """Photos (H, W, 3), RGB, uint8: their files, themselves, and why others could not be read.

    Args:
        skip: leave those out, in place of an error.

    Raises:
        FaceError: one that cannot be read or, where they may be skipped, none that can.
    """
    files, photos, errors = [], [], {}
    for path in paths:
        try:
            photos.append(read_photo(path))
            files.append(path)
        except FaceError as error:
            if not skip:
                raise
            errors[path] = error
    if errors and not photos:
        raise next(iter(errors.values()))
    return files, photos, {path: error.got for path, error in errors.items()}


def _files_in(folder: Path, deep: bool) -> list[Path]:
    """Its files by name, but for hidden ones and captions: texts beside a file of the same name."""
    inside = folder.rglob("*") if deep else folder.iterdir()
    shown = (path for path in inside if not any(map(_hidden, path.relative_to(folder).parts)))
    files = sorted(path for path in shown if path.is_file())
    captions = {path.with_suffix(_CAPTION) for path in files if path.suffix != _CAPTION}
    return [path for path in files if path not in captions]


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _OF_SYSTEMS


def _in_words(reasons: Mapping[Path, str]) -> str:
    """Files by reason: "1.heic, 2.heic (…), letter.pdf (…)"."""
    by_reason: dict[str, list[str]] = {}
    for path, reason in reasons.items():
        by_reason.setdefault(reason, []).append(path.name)
    return ", ".join(f"{', '.join(names)} ({reason})" for reason, names in by_reason.items())


@cache
def _say_once(line: str) -> None:
    """A training looks for its photos several times."""
    logger.warning(line)


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
