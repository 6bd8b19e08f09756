"""Checks of what an identity holds, before anything of it is used."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import IdentityFileError
from ..families import BaseModel
from ..method.kv import DOWN, FULL, UP, layers_of
from ..text.names import is_name, one_form

REMEDY = "Choose another file that ID-EA saved, or train again."
DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def require_name(name: str) -> str:
    """`name` in Unicode's normal form C if it can be a trigger, else IdentityFileError."""
    if not is_name(name):
        raise IdentityFileError(
            "a name of 1 to 64 letters, digits, _, - or '", repr(name), "Choose a name such as alice or bob-2."
        )
    return one_form(name)


def kv_shapes(kv: Mapping[str, Tensor], base: BaseModel) -> dict[str, tuple[int, ...]]:
    """Shapes that the K/V keys should have: their own, if (out, rank) · (rank, in) or (out, in).

    Layers of cross attention read the text condition, of width d. Those of a transformer all read its own width.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    d = base.width
    for layer, suffixes in layers_of(kv).items():
        if not re.fullmatch(base.kv_layer, layer) or suffixes not in ({FULL}, {UP, DOWN}):
            raise file_error("only keys of an identity", f"{layer} with {sorted(suffixes)}")
        if base.transformer and not shapes:
            d = (0, *kv[layer + (FULL if FULL in suffixes else DOWN)].shape)[-1]
        if suffixes == {FULL}:
            shapes[layer + FULL] = (kv[layer + FULL].shape[0] if kv[layer + FULL].ndim else 0, d)
        else:
            rows, rank = (*kv[layer + UP].shape, 0, 0)[:2]
            shapes |= {layer + UP: (rows, rank), layer + DOWN: (rank, d)}
    return shapes


def require_shapes(tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...] | None]) -> None:
    """Raise IdentityFileError unless there are exactly the tensors of these keys and shapes."""
    for key in [*shapes, *tensors]:
        got = tuple(tensors[key].shape) if key in tensors else None
        if got is None or got != shapes.get(key):
            raise file_error(f"{key} of shape {shapes.get(key, 'none')}", f"{got or 'none'}")


def require_finite(tensors: Mapping[str, Tensor]) -> None:
    """Raise IdentityFileError unless all tensors are finite, in half or single precision."""
    for key, tensor in tensors.items():
        if tensor.dtype not in DTYPES:
            raise file_error(f"{key} in half or single precision", str(tensor.dtype))
        bounds = tensor.aminmax() if tensor.numel() else ()  # NaN is both; many times faster than asking every value
        if not all(bound.isfinite() for bound in bounds):
            raise file_error(f"{key} to be finite", "NaN or infinity")


def file_error(expected: str, got: str) -> IdentityFileError:
    """The error of a file whose content does not fit."""
    return IdentityFileError(expected, got, REMEDY)
