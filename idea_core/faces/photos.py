"""Photos from disk: every format that Pillow reads, recognised by content and not by name, as RGB of 8 bits."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError, features

from ..errors import FaceError

logger = logging.getLogger(__name__)

# Files and folders of operating systems and photo programs.
_OF_SYSTEMS = {"thumbs.db", "ehthumbs.db", "desktop.ini", "picasa.ini", "icon\r", "__macosx", "@eadir"}
_CAPTION = ".txt"
# Pillow runs Ghostscript for EPS, and recognises the others by name alone.
_NOT_READ = {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"}
_HEIC = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}
_AVIF = {b"avif", b"avis"}
_SAVE_AGAIN = "Leave the file out, or save it again."
# Scales of grey values without a declared range: white, and the least value of a photo's brightest pixel.
_SCALES = ((1.0, 0.0), (255.0, 16.0), (65535.0, 4096.0))
_OVERSHOOT = 0.05  # of white, which filters may exceed


def find_photos(places: Iterable[str | os.PathLike], deep: bool = False, known: Collection[str] = ()) -> list[Path]:
    """The files given, and the images in the folders given, by name. A folder's images are recognised by content.

    Hidden files and captions are skipped. The log lists all other files that are left out, once.

    Args:
        deep: search subfolders too.
        known: names of files in the folders that are no photos, and not worth a line in the log.

    Raises:
        FaceError: a place that does not exist, or no image at all.
    """
    paths = [Path(place) for place in places]
    photos: list[Path] = []
    others: dict[Path, str] = {}
    for path in paths:
        if path.is_dir():
            reasons = {file: _left_out(file) for file in _files_in(path, deep) if file.name not in known}
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


def read_photo(path: str | Path) -> np.ndarray:
    """A photo (H, W, 3), RGB, uint8, rotated by its EXIF orientation; the first frame of an animation.

    An alpha channel is left out. Grey of more than 8 bits is scaled from 0…1, 0…255 or 0…65535.

    Raises:
        FaceError: no image, a damaged one, or one of another scale.
        MemoryError: too large for this machine.
    """
    path = Path(path)
    try:
        with Image.open(path, formats=_formats(path.suffix)) as photo:
            photo.load()
            return _rgb(photo)
    except MemoryError:
        raise
    except Exception as error:  # damaged images raise errors of many kinds
        got, remedy = _fault(path, error)
        raise FaceError(f"an image in {path.name}", got, remedy) from None


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


def _left_out(path: Path) -> str:
    """Why a file in a folder is not read as a photo; "" if it is an image, or its extension is that of one."""
    try:
        with Image.open(path, formats=_formats(path.suffix)):
            return ""
    except MemoryError:
        raise
    except Image.DecompressionBombError:
        return ""
    except Exception:  # as above
        named_so = Image.registered_extensions().get(path.suffix.lower()) in _readable()
        return _missing_reader(path) or ("" if named_so else "no image")


def _rgb(photo: Image.Image) -> np.ndarray:
    with suppress(Exception):  # damaged EXIF data; other programs show such a photo unrotated
        photo = ImageOps.exif_transpose(photo)
    if photo.mode == "F" or photo.mode.startswith("I"):
        photo = Image.fromarray(_eight_bits(np.asarray(photo)))
    if photo.mode == "P":
        photo = photo.convert("RGBA")  # Pillow warns of a palette with transparency otherwise
    return np.asarray(photo.convert("RGB"))


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """Grey values (H, W) on one of `_SCALES` → uint8; ValueError if they are on none."""
    low, high = float(values.min()), float(values.max())
    for white, bright in _SCALES:
        if low >= -_OVERSHOOT * white and bright <= high <= (1 + _OVERSHOOT) * white:
            return (values * (255 / white)).round().clip(0, 255).astype(np.uint8)
    raise ValueError(f"values from {low:g} to {high:g}, of a scale other than 0…1, 0…255 and 0…65535")


def _fault(path: Path, error: Exception) -> tuple[str, str]:
    """What a file is instead of a readable image, and what to do."""
    if reader := _missing_reader(path):
        return reader, "Do that, or save the photo as JPEG or PNG."
    if isinstance(error, UnidentifiedImageError):
        return "another kind of file" if path.stat().st_size else "an empty file", _SAVE_AGAIN
    return f"one that cannot be read: {str(error) or type(error).__name__}", _SAVE_AGAIN


def _missing_reader(path: Path) -> str:
    """The format of a photo that needs another package, and what to install; "" for other files."""
    try:
        with open(path, "rb") as file:
            start = file.read(12)
    except OSError:
        return ""
    brand = start[8:] if start[4:8] == b"ftyp" else b""
    if brand in _HEIC and "HEIF" not in _readable():
        return "a HEIC photo: install pillow-heif to read it"
    if brand in _AVIF and not features.check("avif"):
        return "an AVIF photo: install Pillow 11.3 or newer to read it"
    return ""


@cache
def _readable() -> tuple[str, ...]:
    """Pillow's names of the formats that are read, with HEIF if pillow-heif is installed."""
    with suppress(Exception):  # not installed, or incompatible with this version of Pillow
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()
    return tuple(format_ for format_ in Image.ID if format_ not in _NOT_READ)


@cache
def _formats(suffix: str) -> tuple[str, ...]:
    """The formats that a file may have. Formats without a signature count only for files of their extension."""
    own = Image.registered_extensions().get(suffix.lower())
    return tuple(format_ for format_ in _readable() if Image.OPEN[format_][1] is not None or format_ == own)
