"""Base models, one module a family: all that differs between them, as plain data."""

from collections.abc import Mapping
from types import MappingProxyType

from .base_model import BaseModel
from .mini import MINI
from .sd1 import SD1
from .sd2 import SD2
from .sdxl import SDXL

BASE_MODELS: Mapping[str, BaseModel] = MappingProxyType({base.key: base for base in (SD1, SD2, SDXL, MINI)})
"""Key in identity files → base model."""
IN_ONE_FILE = tuple(base for base in BASE_MODELS.values() if base.checkpoint)
"""Those whose checkpoints are read from one file, and that ComfyUI knows."""

__all__ = ["BASE_MODELS", "IN_ONE_FILE", "BaseModel", "of_encoders", "of_unet"]


def of_unet(width: int, vector_width: int | None) -> BaseModel | None:
    """The family of a checkpoint's UNet, told by the widths of its text condition and of its vector."""
    return next((base for base in IN_ONE_FILE if (base.width, base.vector_width) == (width, vector_width)), None)


def of_encoders(encoders: Mapping[str, int]) -> BaseModel | None:
    """The family of text encoders of these keys and widths."""
    return next((base for base in BASE_MODELS.values() if base.encoders == encoders), None)
