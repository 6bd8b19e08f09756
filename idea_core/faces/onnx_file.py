"""ONNX files by their bytes: protobuf messages, of which the outermost layers alone are read."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

_GRAPH, _NODE, _NODE_NAME = (number << 3 | 2 for number in (7, 1, 3))  # of ModelProto, GraphProto, NodeProto
_OTHERS = {b"<": "a web page", b"version https://git-lfs": "a Git LFS pointer", b"PK\x03\x04": "an archive"}


def fault_in(path: Path) -> str:
    """What is wrong with an ONNX file as a whole, as a noun phrase; "" if its outermost layer is that of a model."""
    try:
        if not path.stat().st_size:
            return "an empty file"
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _fault(data)
    except OSError as error:
        return error.strerror or str(error)


def normalises(path: Path) -> bool:
    """Whether a recogniser subtracts the mean itself, as those from MXNet do: their first nodes are named so."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        graph = next(_fields(data, _GRAPH, 0, len(data)))
        nodes = islice(_fields(data, _NODE, *graph), 8)
        names = [data[slice(*name)] for node in nodes for name in _fields(data, _NODE_NAME, *node)]
    return all(any(name.startswith(kind) for name in names) for kind in ((b"Sub", b"_minus"), (b"Mul", b"_mul")))


def _fault(data: mmap.mmap) -> str:
    start = data[:64].removeprefix(b"\xef\xbb\xbf").lstrip()
    for mark, kind in _OTHERS.items():
        if start.startswith(mark):
            return kind
    try:
        graphs = [end for _, end in _fields(data, _GRAPH, 0, len(data))]
    except (IndexError, ValueError):
        return "a damaged file, or one of another format"
    if not graphs:
        return "a file without a network in it"
    return f"a file cut short, {len(data)} bytes of {max(graphs)} or more" if max(graphs) > len(data) else ""


def _fields(data: mmap.mmap, wanted: int, at: int, end: int) -> Iterator[tuple[int, int]]:
    """Where the fields of that key lie in a protobuf message: begin and end of each.

    Raises:
        IndexError, ValueError: no protobuf message.
    """

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
        if key == wanted:
            yield at, at + size
        at += size
