"""Weight files of others: safetensors, and torch's pickles read without running what is in them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor
from torch.nn import ParameterDict
from torch.serialization import safe_globals

from ..errors import IdentityFileError
from .pickles import Note, named_in
from .tensorfile import require_file

UNNAMED = ""  # key of the tensor in a file that holds nothing else
_GGUF = b"GGUF"
_PICKLES = (b"\x80", b"PK\x03\x04")  # bare pickles, and the archives that torch.save writes


def read_weights(path: str | os.PathLike) -> dict[str, Any]:
    """The content of a .safetensors, .ckpt, .pt or .bin file, told by its first bytes, not by its name.

    Torch's restricted loader reads pickles: tensors, parameters and plain containers pass. The notes of known trainers
    are left out. Anything else could run code, and is refused before it runs.

    Raises:
        IdentityFileError: neither kind, damaged, or a pickle with more than weights in it.
        FileNotFoundError: no such file.
    """
    path = Path(path)
    require_file(path)
    with open(path, "rb") as file:
        start = file.read(9)
    # A safetensors file begins with the length of a JSON object, whose bytes may be anything.
    if start.startswith(_PICKLES) and not start.endswith(b"{"):
        return _read_pickle(path)
    got, remedy = "GGUF, quantised weights", "Choose the .safetensors file of the same model."
    if not start.startswith(_GGUF):
        try:
            return safetensors.torch.load_file(path)
        except safetensors.SafetensorError as error:
            got, remedy = str(error), "Copy or download it again."
    raise IdentityFileError(f"weights in {path.name}, as .safetensors, .ckpt, .pt or .bin", got, remedy)


def tensors_in(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a checkpoint; older ones keep them under "state_dict"."""
    content = content.get("state_dict", content)
    return {key: value for key, value in content.items() if torch.is_tensor(value)}


def _read_pickle(path: Path) -> dict[str, Any]:
    try:
        content = _load_restricted(path)
    except MemoryError:
        raise
    except Exception:  # damaged pickles raise errors of many kinds
        content = _load_without_notes(path)
    content = _plain(content)
    if torch.is_tensor(content):
        return {UNNAMED: content}
    if not isinstance(content, Mapping):
        raise IdentityFileError(f"a dictionary in {path.name}", type(content).__name__, "Choose another file.")
    return {key: _plain(value) for key, value in content.items() if isinstance(key, str)}


def _load_restricted(path: Path, stand_ins: Sequence[tuple[type, str]] = ()) -> Any:
    # By its name, torch would take some files for another format.
    with open(path, "rb") as file, safe_globals([ParameterDict, *stand_ins]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of protocols: an error says it
        return torch.load(file, map_location="cpu", weights_only=True)


def _load_without_notes(path: Path) -> Any:
    """The content of a file that the restricted loader refuses as it is, with stand-ins for a trainer's notes.

    Raises IdentityFileError, which names what is in the file besides weights.
    """
    named = named_in(path)
    if named.notes and not named.foreign:
        try:
            return _load_restricted(path, [(dict if n.endswith(".AttributeDict") else Note, n) for n in named.notes])
        except MemoryError:
            raise
        except Exception:  # the error below says it
            pass
    remedy = "Use a .safetensors file. Where the file was made, its tensors can be saved alone, as one."
    if named.foreign:
        more = f" and {len(named.foreign) - 3} more" if len(named.foreign) > 3 else ""
        got = f"{', '.join(named.foreign[:3])}{more} in it, which could run code"
    elif named.protocol > 2:
        got = f"a pickle of protocol {named.protocol}, of which torch reads no weights"
    else:
        got, remedy = "a damaged file, or one of another kind", "Copy or download it again, or use a .safetensors file."
    raise IdentityFileError(f"only weights in {path.name}", got, remedy) from None


def _plain(value: Any) -> Any:
    """A `ParameterDict` as the dictionary that it is; any other value as it is."""
    if type(value) is not ParameterDict:
        return value
    inside = vars(value).get("_parameters")  # its own methods would trust what came from the file
    return dict(inside) if isinstance(inside, Mapping) else {}
