"""Weight files of others: safetensors, and torch's pickles read without running what is in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from .errors import IdentityFileError
from .tensorfile import require_file

_GGUF = b"GGUF"
_PICKLES = (b"\x80", b"PK\x03\x04")  # bare pickles, and the archives that torch.save writes


def read_weights(path: str | Path) -> dict[str, Any]:
    """The content of a .safetensors, .ckpt, .pt or .bin file, told by its first bytes, not by its name.

    Pickles are read by torch's restricted loader: tensors and plain containers pass, anything that would run code
    is refused before it runs.

    Raises:
        IdentityFileError: neither kind, damaged, or a pickle with more than weights in it.
        FileNotFoundError: no such file.
    """
    path = Path(path)
    require_file(path)
    with open(path, "rb") as file:
        start = file.read(9)
    if start.startswith(_GGUF):
        raise _no_weights(path, "GGUF, quantised weights", "Choose the .safetensors file of the same model.")
    # A safetensors file begins with the length of a JSON object, whose bytes may be anything.
    if start.startswith(_PICKLES) and not start.endswith(b"{"):
        return _read_pickle(path)
    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise _no_weights(path, str(error), "Copy or download it again.") from None


def _no_weights(path: Path, got: str, remedy: str) -> IdentityFileError:
    return IdentityFileError(f"weights in {path.name}, as .safetensors, .ckpt, .pt or .bin", got, remedy)


def tensors_in(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a checkpoint; older ones keep them under "state_dict"."""
    content = content.get("state_dict", content)
    return {key: value for key, value in content.items() if torch.is_tensor(value)}


def _read_pickle(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:  # by its name, torch would take some files for another format
            content = torch.load(file, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # damaged pickles raise errors of many kinds
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise IdentityFileError(
            f"only weights in {path.name}",
            f"a damaged file or one that holds code ({lines[0][:200]})",
            "Use a .safetensors file, or one from a source that you trust to hold weights alone.",
        ) from None
    if not isinstance(content, Mapping):
        raise IdentityFileError(f"a dictionary in {path.name}", type(content).__name__, "Choose another file.")
    return dict(content)
