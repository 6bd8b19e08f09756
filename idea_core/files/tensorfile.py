"""Safetensors files, written in one move and with equal bytes for equal content."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import safetensors
import safetensors.torch
from torch import Tensor

from ..errors import IdentityFileError


def write_tensors(path: str | os.PathLike, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Path:
    """Write a safetensors file; equal content gives equal bytes."""
    data = safetensors.torch.save(dict(tensors), dict(metadata))
    size = int.from_bytes(data[:8], "little")
    # The library writes metadata in random order.
    header = json.dumps(json.loads(data[8 : 8 + size]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    content = len(header).to_bytes(8, "little") + header + data[8 + size :]
    return write_atomically(path, lambda file: file.write(content))


def write_atomically(path: str | os.PathLike, write: Callable[[BinaryIO], object]) -> Path:
    """Write beside `path` and move into place: a reader sees the old file or the new one, never a part.

    Raises OSError that names `path`, with any existing file left whole.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.stem[:40]}.{secrets.token_hex(8)}.part")
    try:
        with open(part, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(part)):
            error.filename = str(path)  # a full disk does not say of which file
        raise
    return path


def read_metadata(path: str | os.PathLike) -> dict[str, str]:
    """A safetensors file's metadata; nothing where it has none or is another kind of file.

    Raises FileNotFoundError.
    """
    require_file(path)
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            return file.metadata() or {}
    except safetensors.SafetensorError:
        return {}


def read_tensors(
    path: str | os.PathLike, check: Callable[[Mapping[str, str]], None]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file; `check` sees the metadata before any tensor is read.

    Raises:
        IdentityFileError: not a whole safetensors file.
        FileNotFoundError: no such file.
    """
    require_file(path)
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            check(metadata)
            # Copies: tensors of the library stay mapped to the file, which may be replaced while they are in use.
            return {key: file.get_tensor(key).clone() for key in file.keys()}, metadata
    except safetensors.SafetensorError:
        got = "a damaged or unfinished one, or another kind of file"
        raise IdentityFileError("a whole safetensors file", got, "Copy or download the file again.") from None


def require_file(path: str | os.PathLike) -> None:
    """Raise FileNotFoundError unless a file is there."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"Expected a file at {path}, got none. Choose a file that exists.")
