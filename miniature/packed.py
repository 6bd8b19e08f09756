"""Models as they are shipped, with matrices in bytes:  python -m miniature.packed work/models world3d/data/models

That is half of what half precision takes. `unpack` expands them to what diffusers and this pack read.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import click
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from idea_core.files.digest import Digest
from idea_core.headless.jobs import ModelSource

BASE, ENHANCER = "base", "enhancer.safetensors"
_SCALE = ".scale"
_SMALLEST = 4096  # numbers; smaller tensors stay as they are
_STEPS = 127
Change = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def unpack(source: Path, target: Path) -> Path:
    """Expand shipped models into a folder, which several processes may do at once; files that are there stay.

    Raises:
        OSError: a file could not be written.
    """
    for file in _files(source):
        place = target / file.relative_to(source)
        if place.exists():
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_name(f"{place.name}.{os.getpid()}.part")
        if file.suffix == ".safetensors":
            _convert(file, part, expand)
        else:
            shutil.copyfile(file, part)
        part.replace(place)
    return target


def unpack_once(source: Path) -> Path:
    """Shipped models, expanded into a folder for temporary files that is named by what they contain."""
    digest = Digest()
    for file in _files(source):
        digest.add_text(file.relative_to(source).as_posix()).add_file(file)
    return unpack(source, Path(tempfile.gettempdir()) / f"id-ea-{source.parent.name}-{digest.hex()[:16]}")


def pack(source: Path, target: Path) -> None:
    """Write the files of a folder as they are shipped. An ID-Enhancer among them then knows the base as it expands."""
    shutil.rmtree(target, ignore_errors=True)
    for file in _files(source):
        place = target / file.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".safetensors":
            _convert(file, place, shrink)
        else:
            shutil.copyfile(file, place)
    if (source / ENHANCER).exists():
        with tempfile.TemporaryDirectory() as folder:
            base = ModelSource(unpack(target, Path(folder)) / BASE).digest
        _convert(source / ENHANCER, target / ENHANCER, shrink, {"base_hash": base})


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


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _convert(source: Path, target: Path, change: Change, said: Mapping[str, str] = MappingProxyType({})) -> None:
    """A safetensors file with other tensors; its metadata with `said` in them."""
    with safe_open(source, "pt") as file:
        tensors, metadata = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()
    save_file(change(tensors), target, {**metadata, **said} if metadata or said else None)


@click.command()
@click.argument("source", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
def main(source: Path, target: Path) -> None:
    pack(source, target)


if __name__ == "__main__":
    main()
