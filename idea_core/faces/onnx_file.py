"""ONNX files as bytes: only the outermost layers of the protobuf message are read."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

_GRAPH, _NODE, _NODE_NAME = (number << 3 | 2 for number in (7, 1, 3))  # of ModelProto, GraphProto, NodeProto
_OTHERS = {b"<": "a web page", b"version https://git-lfs": "a Git LFS pointer", b"PK\x03\x04": "an archive"}


def fault_in(path: Path) -> str:
    """What is wrong with an ONNX file as a whole, as a noun phrase; "" if its outermost layer is a model's."""
    try:
        if not path.stat().st_size:
            return "an empty file"
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            start = data[:64].removeprefix(b"\xef\xbb\xbf").lstrip()
            for mark, kind in _OTHERS.items():
                if start.startswith(mark):
                    return kind
            size, ends = len(data), [end for _, end in _fields(data, _GRAPH, 0, len(data))]
    except OSError as error:
        return error.strerror or str(error)
    except (IndexError, ValueError):
        return "a damaged file, or one of another format"
    if not ends:
        return "a file without a network in it"
    return f"a file cut short, {size} bytes of {max(ends)} or more" if max(ends) > size else ""


def normalises(path: Path) -> bool:
    """Whether a recogniser normalises pixels itself, as those from MXNet do; the names of its first nodes tell."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        graph = next(_fields(data, _GRAPH, 0, len(data)))
        nodes = islice(_fields(data, _NODE, *graph), 8)
        names = [data[slice(*name)] for node in nodes for name in _fields(data, _NODE_NAME, *node)]
    return all(any(name.startswith(kind) for name in names) for kind in ((b"Sub", b"_minus"), (b"Mul", b"_mul")))


def _fields(data: mmap.mmap, field: int, at: int, end: int) -> Iterator[tuple[int, int]]:
    """Start and end of each field with a key in a protobuf message; IndexError or ValueError if it is none."""

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < end:
        key = varint()
        kind = key & 7
        if kind not in (0, 1, 2, 5) or key < 8:
            raise ValueError(f"key {key}")
        if kind == 0:
            varint()
            continue
        size = {1: 8, 5: 4}[kind] if kind != 2 else varint()
        if key == field:
            yield at, at + size
        at += size
