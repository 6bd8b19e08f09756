"""Image files: every format that Pillow reads, recognised by content and not by name, as RGB of 8 bits."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError, features

from ..errors import FaceError

# Pillow runs Ghostscript for EPS, and recognises the others by name alone.
_NOT_READ = {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"}
_HEIC = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}
_AVIF = {b"avif", b"avis"}
_SAVE_ANEW = "Leave the file out, or save it anew."
# Scales of grey values without a declared range: white, and the least value of a photo's brightest pixel.
_SCALES = ((1.0, 0.0), (255.0, 16.0), (65535.0, 4096.0))
_OVERSHOOT = 0.05  # of white, which filters may exceed


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
            return _rgb(_upright(photo))
    except MemoryError:
        raise
    except Exception as error:  # damaged images raise errors of many kinds
        got, remedy = _fault(path, error)
        raise FaceError(f"a picture in {path.name}", got, remedy) from None


def left_out(path: Path) -> str:
    """Why a file in a folder is not read as a photo; "" if it is an image, or its extension is that of one."""
    try:
        with Image.open(path, formats=_formats(path.suffix)):
            return ""
    except MemoryError:
        raise
    except Image.DecompressionBombError:
        return ""
    except Exception:  # as above
        return _missing_reader(path) or ("" if path.suffix.lower() in _extensions() else "no picture")


def _upright(photo: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(photo)
    except Exception:  # damaged EXIF data; other programs show such a photo unrotated
        return photo


def _rgb(photo: Image.Image) -> np.ndarray:
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
        return "another kind of file" if path.stat().st_size else "an empty file", _SAVE_ANEW
    return f"one that cannot be read: {str(error) or type(error).__name__}", _SAVE_ANEW


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
def _extensions() -> frozenset[str]:
    return frozenset(suffix for suffix, format_ in Image.registered_extensions().items() if format_ in _readable())


@cache
def _formats(suffix: str) -> tuple[str, ...]:
    """The formats that a file may have. Formats without a signature count only for files of their extension."""
    own = Image.registered_extensions().get(suffix.lower())
    return tuple(format_ for format_ in _readable() if Image.OPEN[format_][1] is not None or format_ == own)
