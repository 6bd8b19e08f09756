"""Face engines, loaded once per process: insightface's where it is installed, else onnxruntime alone."""

from __future__ import annotations

import ctypes
import gc
import sys
from contextlib import suppress
from functools import lru_cache

from ..errors import MissingPackageError
from .face import FaceEngine
from .insightface_engine import InsightFaceEngine
from .onnx_engine import OnnxEngine
from .packs import FacePack


def build_engine(pack: FacePack, provider: str = "auto") -> FaceEngine:
    """The pack's engine, of insightface or of onnxruntime alone; both kinds give the same results.

    Raises:
        MissingPackageError: onnxruntime is not installed.
        FaceError: the pack is incomplete, or the provider is not available.
    """
    try:
        return InsightFaceEngine(pack, provider)
    except MissingPackageError:
        return OnnxEngine(pack, provider)


@lru_cache(maxsize=1)
def load_engine(pack: FacePack, provider: str = "auto") -> FaceEngine:
    """As `build_engine`; the last one loaded is cached until `free_engines`."""
    return build_engine(pack, provider)


def free_engines() -> None:
    """Drop the cached engine; its memory is free once nothing else refers to it."""
    load_engine.cache_clear()
    gc.collect()
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # a C library without it
            ctypes.CDLL(None).malloc_trim(0)  # glibc would keep a quarter of the models' memory to itself
