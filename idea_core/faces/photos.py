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

# What operating systems and cameras' programs leave in folders: no photos of anybody.
_OF_SYSTEMS = {"thumbs.db", "ehthumbs.db", "desktop.ini", "picasa.ini", "icon\r", "__macosx", "@eadir"}
_CAPTION = ".txt"


def find_photos(places: Iterable[str | os.PathLike], deep: bool = False) -> list[Path]:
    """The files given, and the images in the folders given, by name. A folder's images are recognised by content.

    Hidden files and captions are skipped. The log lists all other files that are left out, once.

    Args:
        deep: search subfolders too.

    Raises:
        FaceError: a place that does not exist, or no image at all.
    """
    paths = [Path(place) for place in places]
    photos: list[Path] = []
    others: dict[Path, str] = {}
    for path in paths:
        if path.is_dir():
            reasons = {file: left_out(file) for file in _files_in(path, deep)}
            photos += [file for file, reason in reasons.items() if not reason]
            if skipped := {file: reason for file, reason in reasons.items() if reason}:
                _warn_once(f"ID-EA: left out in {path}: {_by_reason(skipped)}")
                others |= skipped
        elif path.is_file():
            photos.append(path)
        else:
            raise FaceError(f"photos at {path}", "nothing there", "Give files or a folder with photos.")
    if not photos:
        where = ", ".join(map(str, paths)) or "no place"
        got = f"none in {where}" + (f", only {_by_reason(others)}" if others else "")
        raise FaceError("at least one photo (JPEG, PNG, WebP …)", got, "Give files or a folder with photos.")
    return photos


def read_photos(paths: Iterable[Path], skip: bool = False) -> tuple[list[Path], list[np.ndarray], dict[Path, str]]:
    """The files that could be read, their photos (H, W, 3), RGB, uint8, and why other files could not be read.

    Args:
        skip: leave out unreadable files instead of raising an error.

    Raises:
        FaceError: an unreadable file or, with `skip`, no readable one.
    """
    files: list[Path] = []
    photos: list[np.ndarray] = []
    errors: dict[Path, FaceError] = {}
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
    """A folder's files by name, without hidden ones and captions: text files beside a file of the same name."""
    inside = folder.rglob("*") if deep else folder.iterdir()
    shown = (path for path in inside if not any(map(_hidden, path.relative_to(folder).parts)))
    files = sorted(path for path in shown if path.is_file())
    captions = {path.with_suffix(_CAPTION) for path in files if path.suffix != _CAPTION}
    return [path for path in files if path not in captions]


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _OF_SYSTEMS


def _by_reason(reasons: Mapping[Path, str]) -> str:
    """Files by reason: "1.heic, 2.heic (…), letter.pdf (…)"."""
    names: dict[str, list[str]] = {}
    for path, reason in reasons.items():
        names.setdefault(reason, []).append(path.name)
    return ", ".join(f"{', '.join(some)} ({reason})" for reason, some in names.items())


@cache
def _warn_once(line: str) -> None:
    """A training searches for its photos several times."""
    logger.warning(line)


def fit(photo: np.ndarray, width: int, height: int) -> np.ndarray:
    """The largest centre crop of a photo with the given aspect ratio, scaled to (height, width, 3)."""
    return np.asarray(ImageOps.fit(Image.fromarray(photo), (width, height), Image.Resampling.LANCZOS))


def bucket_of(width: int, height: int, resolution: int, step: int = 64) -> tuple[int, int]:
    """Aspect-ratio bucket: width and height to train a photo at, multiples of `step`, at most resolution² pixels.

    Aspect ratios beyond 1 : 2 count as 1 : 2.
    """
    wanted = min(2.0, max(0.5, width / height))
    sizes = [(side, resolution**2 // side // step * step) for side in range(step, 2 * resolution, step)]
    fitting = [(wide, high) for wide, high in sizes if high and 0.5 <= wide / high <= 2] or [(resolution, resolution)]
    return min(fitting, key=lambda size: abs(math.log(size[0] / size[1] / wanted)))
