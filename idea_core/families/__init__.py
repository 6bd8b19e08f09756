"""Base models, one module a family: all that differs between them, as plain data."""

from collections.abc import Mapping
from types import MappingProxyType

from .base_model import BaseModel
from .chroma import CHROMA
from .flux import FLUX1, KLEIN
from .mini import MINI
from .mini_flow import MINI_FLOW
from .sd1 import SD1
from .sd2 import SD2
from .sdxl import SDXL
from .world3d import WORLD3D
from .zimage import ZIMAGE

BASE_MODELS: Mapping[str, BaseModel] = MappingProxyType(
    {base.key: base for base in (SD1, SD2, SDXL, MINI, WORLD3D, FLUX1, KLEIN, ZIMAGE, CHROMA, MINI_FLOW)}
)
"""Key in identity files → base model."""
IN_ONE_FILE = tuple(base for base in BASE_MODELS.values() if base.checkpoint)
"""Those whose checkpoints are read from one file."""
UNETS = tuple(base for base in BASE_MODELS.values() if base.transformer is None)
"""Those with cross attention, which diffusers runs too."""
HEADLESS_FLOWS = tuple(base for base in BASE_MODELS.values() if base.transformer and base.transformer.headless)
"""Transformers that diffusers runs too."""
IN_COMFYUI = (*IN_ONE_FILE, *(base for base in BASE_MODELS.values() if base.transformer and base.transformer.configs))
"""Those that ComfyUI runs."""

__all__ = [
    "BASE_MODELS",
    "HEADLESS_FLOWS",
    "IN_COMFYUI",
    "IN_ONE_FILE",
    "UNETS",
    "BaseModel",
    "of_config",
    "of_unet",
]


def of_unet(width: int, vector_width: int | None) -> BaseModel | None:
    """The family of a checkpoint's UNet, told by the widths of its text condition and of its vector."""
    return next((base for base in IN_ONE_FILE if (base.width, base.vector_width) == (width, vector_width)), None)


def of_config(config: str, width: int | None) -> BaseModel | None:
    """The family of a transformer, told by ComfyUI's name of its configuration and the width of its text condition."""
    known = (base for base in BASE_MODELS.values() if base.transformer and config in base.transformer.configs)
    return next((base for base in known if base.width == width), None)
