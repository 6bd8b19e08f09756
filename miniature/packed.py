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
from idea_core.files.tensorfile import write_atomically
from idea_core.headless.jobs import ModelSource

BASE, ENHANCER = "base", "enhancer.safetensors"
MARK = "expanded"  # file in an expanded folder: the digest of what it was made of
_SCALE = ".scale"
_SMALLEST = 4096  # numbers; smaller tensors stay as they are
_STEPS = 127
Change = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def unpack(source: Path, target: Path) -> Path:
    """Expand shipped models into a folder, which several processes may do at once; it is done once. The folder.

    Raises:
        FileNotFoundError: there are no shipped models.
        OSError: a file could not be written.
    """
    digest = tree_digest(source)
    try:
        if (target / MARK).read_text("utf-8") == digest:
            return target
    except (OSError, ValueError):
        pass
    for file in _files(source):
        place = target / file.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_name(f"{place.name}.{os.getpid()}.part")
        if file.suffix == ".safetensors":
            _convert(file, part, expand)
        else:
            shutil.copyfile(file, part)
        part.replace(place)
    write_atomically(target / MARK, lambda file: file.write(digest.encode()))
    return target


def tree_digest(folder: Path) -> str:
    """SHA-256 of a folder's files and their names. Raises FileNotFoundError if there are none."""
    digest, files = Digest(), _files(folder)
    if not files:
        raise FileNotFoundError(f"no models in {folder}: they stand in the repository")
    for file in files:
        digest.add_text(file.relative_to(folder).as_posix()).add_file(file)
    return digest.hex()


def pack(source: Path, target: Path) -> None:
    """Write the files of a folder as they are shipped. An ID-Enhancer among them then knows the base as it expands.

    Raises:
        ValueError: models that are packed already, or a folder within the other.
    """
    first, second = source.resolve(), target.resolve()
    if first in (second, *second.parents) or second in first.parents:
        raise ValueError("source and target are one folder, or one is in the other")
    with tempfile.TemporaryDirectory() as folder:
        packed = Path(folder) / "packed"
        for file in _files(source):
            place = packed / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            if file.suffix == ".safetensors":
                _convert(file, place, shrink)
            elif file.name != MARK:
                shutil.copyfile(file, place)
        if (source / ENHANCER).exists():
            base = ModelSource(unpack(packed, Path(folder) / "expanded") / BASE).digest
            _convert(source / ENHANCER, packed / ENHANCER, shrink, {"base_hash": base})
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(packed, target)


def shrink(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Large matrices as bytes with a scale for each of their rows; all else in half precision."""
    small = {}
    for key, tensor in tensors.items():
        if key.endswith(_SCALE):
            raise ValueError("these models are packed already")
        if tensor.ndim < 2 or tensor.numel() < _SMALLEST or not tensor.is_floating_point():
            small[key] = tensor.half() if tensor.is_floating_point() else tensor
            continue
        rows = tensor.float().flatten(1)
        scale = rows.abs().amax(1).clamp(min=1e-6) / _STEPS
        small[key] = (rows / scale[:, None]).round().clamp(-_STEPS, _STEPS).char().view(tensor.shape)
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
