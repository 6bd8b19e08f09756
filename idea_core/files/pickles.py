"""What torch's pickles name, read off their opcodes: nothing is imported, nothing is unpickled."""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

_MAX_BYTES = 1 << 23  # of a pickle without its weights
_MAX_PICKLES = 5  # in a file: torch wrote four before its first archives, and the storages' names
_WITH_SOURCE = "module"  # before torch had archives, its mark of a class that is stored with its source
_TORCHS = re.compile(
    r"torch\._utils\._rebuild_\w+|torch\.serialization\.\w+|torch(\.storage)?\.\w*Storage|torch\.storage\._\w+"
    r"|torch\.(Tensor|Size|device|layout|dtype|bool|half|double|bfloat16|(float|complex|u?int|q\w?int)\w+)"
    r"|torch\.nn\.parameter\.\w+|torch\.nn\.modules\.container\.ParameterDict|collections\.(OrderedDict|Counter)"
    r"|_codecs\.encode"
)
# Notes that trainers store beside the weights; nothing reads them.
_NOTES = re.compile(
    r"(pytorch_lightning|lightning|lightning_fabric|lightning_utilities|omegaconf)\..+"
    r"|argparse\.Namespace|pathlib\.\w*Path|typing\.Any|numpy\.(_?core\.multiarray\.scalar|dtype|dtypes\.\w+)"
    r"|builtins\.(bool|bytes|complex|dict|float|int|list|object|set|str|tuple)"
)


class Named(NamedTuple):
    """The classes and functions that a file's pickles name, as "module.name", each once.

    Attributes:
        foreign: those that are neither torch's own for weights nor a trainer's notes.
        notes: those of a trainer's notes.
        protocol: the highest of the pickles.
    """

    foreign: list[str]
    notes: list[str]
    protocol: int


class Note:
    """Stand-in for any object of a trainer's notes: it takes everything, and does nothing."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _state: object) -> None:
        pass


def named_in(path: Path) -> Named:
    """What a .ckpt, .pt or .bin file names; as much as can be read of a damaged one."""
    names: dict[str, None] = {}
    protocol = 0
    with suppress(Exception):  # damaged files raise errors of many kinds
        bare = not zipfile.is_zipfile(path)
        for code, argument in _opcodes(path):
            if code == "PROTO":
                protocol = max(protocol, argument)
            elif code in ("GLOBAL", "INST", "STACK_GLOBAL"):
                names[_tidy(argument)] = None
            elif argument == _WITH_SOURCE and bare:
                names["source code of classes"] = None
    notes = [name for name in names if _NOTES.fullmatch(name)]
    foreign = [name for name in names if not _TORCHS.fullmatch(name) and not _NOTES.fullmatch(name)]
    return Named(foreign, notes, protocol)


def _opcodes(path: Path) -> Iterator[tuple[str, Any]]:
    """The opcodes of the pickles in a file; `STACK_GLOBAL` with the names that it takes from the stack."""
    with open(path, "rb") as file:
        stream = _pickle_in(file)
        for _ in range(_MAX_PICKLES):
            words: list[str] = []
            memo: dict[int, str] = {}
            for code, argument, _ in pickletools.genops(stream):
                if isinstance(argument, str) and code.name not in ("GLOBAL", "INST"):
                    words.append(argument)
                elif code.name in ("BINGET", "LONG_BINGET", "GET") and argument in memo:
                    words.append(memo[argument])
                elif code.name in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE") and words:
                    memo[len(memo) if argument is None else argument] = words[-1]
                yield code.name, " ".join(words[-2:]) if code.name == "STACK_GLOBAL" else argument


def _pickle_in(file: BinaryIO) -> BinaryIO:
    """The file itself, or the pickle in torch's archive."""
    if not zipfile.is_zipfile(file):
        file.seek(0)
        return io.BytesIO(file.read(_MAX_BYTES))
    archive = zipfile.ZipFile(file)
    name = next(name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl")
    with archive.open(name) as inside:
        return io.BytesIO(inside.read(_MAX_BYTES))


def _tidy(name: str) -> str:
    """ "module name" of an opcode as "module.name", short and printable."""
    module, _, rest = name.partition(" ")
    module = "builtins" if module == "__builtin__" else module
    return re.sub(r"[^\w.]", "?", f"{module}.{rest}")[:80]
