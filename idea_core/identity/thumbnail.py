"""A small image inside a person's file, as in Stability AI's ModelSpec: a data URI of a JPEG."""

from __future__ import annotations

import base64
import binascii
import io
import logging
import warnings
from typing import TYPE_CHECKING

from torch import Tensor

from ..errors import IdentityFileError
from ..images import to_pixels

if TYPE_CHECKING:
    from PIL import Image

logger = logging.getLogger(__name__)

KEY = "modelspec.thumbnail"
SIDE = 256  # pixels, at most
_PREFIX = "data:image/jpeg;base64,"
_MAX_LENGTH = 200_000  # characters
_FIX = "Save the person with another image, or with none."


def encode_thumbnail(image: Image.Image) -> str:
    """The image as a data URI, at most 256 pixels wide and high."""
    small = image.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=85)
    return _PREFIX + base64.b64encode(file.getvalue()).decode()


def thumbnail_of(image: Tensor) -> str:
    """`encode_thumbnail` of an image (H, W, 3) in 0…1 on the CPU."""
    from PIL import Image

    return encode_thumbnail(Image.fromarray(to_pixels(image)))


def decode_thumbnail(text: str) -> Image.Image:
    """The image of a data URI; IdentityFileError for anything but a small JPEG."""
    from PIL import Image

    if len(text) > _MAX_LENGTH or not text.startswith(_PREFIX):
        raise IdentityFileError(f"a thumbnail of at most {_MAX_LENGTH} characters, {_PREFIX}…", text[:40] + "…", _FIX)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(base64.b64decode(text[len(_PREFIX) :], validate=True)), formats=["JPEG"])
            if max(image.size) > 4 * SIDE:
                raise IdentityFileError("a small thumbnail", f"{image.width} × {image.height} pixels", _FIX)
            return image.convert("RGB")
    except (binascii.Error, OSError, SyntaxError, ValueError, Warning, Image.DecompressionBombError) as error:
        raise IdentityFileError("a thumbnail that is a JPEG", str(error), _FIX) from None


def readable_thumbnail(text: str) -> str:
    """`text` if it can be decoded, else "" with a warning: the rest of the file stays readable."""
    try:
        if text:
            decode_thumbnail(text)
        return text
    except IdentityFileError as error:
        logger.warning("ID-EA: the thumbnail of a file is left out. %s", error)
        return ""
