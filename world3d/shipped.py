"""The world's models as they are shipped: matrices in bytes, a half of what half precision takes.

`pack` makes a folder that `unpack` expands to what diffusers and this pack read: pipeline, face models, ID-Enhancer.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

DATA = Path(__file__).parent / "data" / "models"
BASE, FACES, ENHANCER = "base", "faces", "enhancer.safetensors"
SECOND = "second.safetensors"  # beside the face models
_SCALE = ".scale"
_SMALLEST = 4096  # numbers; smaller tensors stay as they are
_STEPS = 127


def unpack(target: Path, source: Path = DATA) -> Path:
    """Expand the shipped models into a folder; files that are there stay. The folder.

    Raises:
        OSError: a file could not be written.
    """
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        place = target / file.relative_to(source)
        if place.exists():
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_suffix(".part")
        if file.suffix == ".safetensors":
            _convert(file, part, expand)
        else:
            shutil.copyfile(file, part)
        part.replace(place)
    return target


def pack(source: Path, target: Path = DATA) -> None:
    """Write the files of a folder as they are shipped."""
    shutil.rmtree(target, ignore_errors=True)
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        place = target / file.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".safetensors":
            _convert(file, place, shrink)
        else:
            shutil.copyfile(file, place)


def shrink(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Large matrices as bytes with a scale for each of their rows; all else in half precision."""
    small = {}
    for key, tensor in tensors.items():
        if tensor.ndim < 2 or tensor.numel() < _SMALLEST:
            small[key] = tensor.half() if tensor.is_floating_point() else tensor
            continue
        rows = tensor.float().flatten(1)
        scale = (rows.abs().amax(1).clamp(min=1e-6) / _STEPS).half()
        small[key] = (rows / scale.float()[:, None]).round().clamp(-_STEPS, _STEPS).char().view(tensor.shape)
        small[key + _SCALE] = scale
    return small


def expand(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What `shrink` made, in half precision."""
    large = {}
    for key, tensor in tensors.items():
        if tensor.dtype == torch.int8:
            scale = tensors[key + _SCALE].float().view(-1, *[1] * (tensor.ndim - 1))
            large[key] = (tensor.float() * scale).half()
        elif not key.endswith(_SCALE):
            large[key] = tensor
    return large


def _convert(source: Path, target: Path, change) -> None:
    """A safetensors file with other tensors, and the same metadata."""
    with safe_open(source, "pt") as file:
        tensors, metadata = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()
    save_file(change(tensors), target, metadata)
