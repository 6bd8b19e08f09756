"""Checks of what an identity holds, before anything of it is used."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..diffusion.schedule import PREDICTIONS
from ..errors import IdentityFileError
from ..families import BASE_MODELS
from ..families.ldm_names import KV_LAYER
from ..method.kv import DOWN, FULL, UP, layers_of
from ..text.names import is_name, one_form

DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def require_name(name: str) -> str:
    """`name` in Unicode's normal form C if it can be a trigger, else IdentityFileError."""
    if not is_name(name):
        raise IdentityFileError(
            "a name of 1 to 64 letters, digits, _, - or '", repr(name), "Choose a name such as alice or bob-2."
        )
    return one_form(name)


def require_settings(one: Any, file_error: Callable[[str, str], IdentityFileError]) -> None:
    """Raise `file_error(expected, got)` unless what a file says of its base model, adapter and training can be so."""
    if one.base_model not in BASE_MODELS:
        raise file_error(f"base_model to be one of {', '.join(BASE_MODELS)}", repr(one.base_model))
    if one.prediction not in PREDICTIONS:
        raise file_error(f"prediction to be one of {', '.join(PREDICTIONS)}", repr(one.prediction))
    width = BASE_MODELS[one.base_model].width
    if one.heads < 1 or width % one.heads:
        raise file_error(f"heads to divide the width {width}", str(one.heads))
    if not math.isfinite(one.beta):
        raise file_error("beta to be finite", str(one.beta))
    if not isinstance(one.training, Mapping):
        raise file_error("training to be a JSON object", str(one.training))


def kv_shapes(kv: Mapping[str, Tensor], d: int) -> dict[str, tuple[int, ...]]:
    """Shapes that the K/V keys should have: their own, if (out, rank) · (rank, d) or (out, d)."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, suffixes in layers_of(kv).items():
        if not KV_LAYER.fullmatch(layer) or suffixes not in ({FULL}, {UP, DOWN}):
            raise file_error("only keys of an identity", f"{layer} with {sorted(suffixes)}")
        if suffixes == {FULL}:
            shapes[layer + FULL] = (kv[layer + FULL].shape[0] if kv[layer + FULL].ndim else 0, d)
        else:
            rows, rank = (*kv[layer + UP].shape, 0, 0)[:2]
            shapes |= {layer + UP: (rows, rank), layer + DOWN: (rank, d)}
    return shapes


def require_shapes(tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    for key in [*shapes, *tensors]:
        got = tuple(tensors[key].shape) if key in tensors else None
        if got is None or got != shapes.get(key):
            raise file_error(f"{key} of shape {shapes.get(key, 'none')}", f"{got or 'none'}")


def require_finite(tensors: Mapping[str, Tensor]) -> None:
    for key, tensor in tensors.items():
        if tensor.dtype not in DTYPES:
            raise file_error(f"{key} in half or single precision", str(tensor.dtype))
        bounds = tensor.aminmax() if tensor.numel() else ()  # NaN is both; many times faster than asking every value
        if not all(bound.isfinite() for bound in bounds):
            raise file_error(f"{key} to be finite", "NaN or infinity")


def file_error(expected: str, got: str) -> IdentityFileError:
    return IdentityFileError(expected, got, "Choose a file that Save ID-EA Embedding wrote, or train again.")
