"""SHA-256 digests of texts, settings, tensors and files, hexadecimal."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

_BLOCK = 1 << 24  # bytes of a file in memory


class Digest:
    """SHA-256 of parts, in the order in which they are added; each method returns the digest itself.

    A single text or file has the digest that other programs give it.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, data: bytes) -> Digest:
        self._hash.update(data)
        return self

    def add_text(self, text: str) -> Digest:
        return self.add(text.encode())

    def add_json(self, values: Any) -> Digest:
        """JSON values, whatever the order of their keys."""
        return self.add_text(json.dumps(values, sort_keys=True))

    def add_tensor(self, tensor: Tensor) -> Digest:
        """Dtype, shape and values."""
        self.add_text(f"{tensor.dtype} {tuple(tensor.shape)}")
        return self.add(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())

    def add_tensors(self, tensors: Mapping[str, Tensor]) -> Digest:
        """Tensors and their keys, whatever their order."""
        for key, tensor in sorted(tensors.items()):
            self.add_text(f"{key} ").add_tensor(tensor)
        return self

    def add_file(self, path: str | os.PathLike) -> Digest:
        """A file's bytes, block by block; OSError if it cannot be read."""
        with open(path, "rb") as file:
            while block := file.read(_BLOCK):
                self.add(block)
        return self

    def hex(self) -> str:
        """The digest so far."""
        return self._hash.hexdigest()


def file_digest(path: str | os.PathLike) -> str:
    """The digest of a file, kept until the file changes; OSError if it cannot be read."""
    status = os.stat(path)
    return _file_digest(os.fspath(path), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=64)
def _file_digest(path: str, _modified: int, _size: int) -> str:
    return Digest().add_file(path).hex()


def digest_of(*parts: object) -> str:
    """The digest of texts."""
    return Digest().add_text("\0".join(map(str, parts))).hex()
