"""Principal axes of names, kept on disk: they depend on the model and the names alone, and their SVD takes seconds."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import IdentityFileError
from ..files.digest import Digest
from ..files.format import FileFormat
from ..files.tensorfile import write_tensors

logger = logging.getLogger(__name__)

FORMAT = FileFormat("id-ea-axes", "1", "Delete the file; it is computed again.")
AXES_FOLDER = ".id-ea"
"""Beside the files of people."""
KEPT = 8  # files of some megabytes; the oldest are deleted

_folder: ContextVar[Path | None] = ContextVar("folder of kept axes", default=None)


class Axes(NamedTuple):
    """How points differ from their mean.

    Attributes:
        mean: (n, d).
        axes: (n, k, d), each as long as the points' standard deviation along it; the longest comes first.
    """

    mean: Tensor
    axes: Tensor

    def digest(self) -> str:
        return Digest().add_tensors(self._asdict()).hex()


@contextmanager
def axes_kept_in(folder: Path) -> Iterator[None]:
    """While open, `principal_axes` reads what it has computed before from files in a folder, and writes them there."""
    before = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(before)


def principal_axes(points: Tensor, count: int) -> Axes:
    """Mean and principal axes of N points (n, N, d), at most `count` axes at each of n positions.

    A file is found by the digest of the points: any other model, text encoder or list of names has another one. A
    damaged or outdated file is computed again.
    """
    folder = _folder.get()
    if folder is None:
        return _computed(points, count)
    # Devices and versions of PyTorch round the SVD differently.
    key = Digest().add_text(f"{count} {points.device.type} {torch.__version__} ").add_tensor(points).hex()
    path = folder / f"{key[:32]}.axes"
    axes = _read(path)
    if axes is None:
        axes = _computed(points, count)
        _write(path, axes)
    return Axes(*(part.to(points.device) for part in axes))


def _computed(points: Tensor, count: int) -> Axes:
    mean = points.mean(1, keepdim=True)
    _, singular, directions = torch.linalg.svd(points - mean, full_matrices=False)
    largest = directions.gather(-1, directions.abs().argmax(-1, keepdim=True))
    directions = directions * largest.sign()  # the SVD leaves the sign open: the same on all devices
    axes = (directions * singular[..., None] / points.shape[1] ** 0.5)[:, :count]
    return Axes(mean[:, 0], axes.contiguous())  # laid out as in a file: products round alike


def _read(path: Path) -> Axes | None:
    """The axes of a file; None without one, or with one line in the log where it is not whole."""
    try:
        with FORMAT.reading(path) as (tensors, metadata):
            axes = Axes(tensors["mean"], tensors["axes"])
            if metadata["digest"] != axes.digest():
                raise ValueError("another digest than the values'")
    except FileNotFoundError:
        return None
    except (IdentityFileError, OSError) as error:
        logger.warning("ID-EA: the names' axes are computed again. %s", error)
        return None
    return axes


def _write(path: Path, axes: Axes) -> None:
    """Keep axes for the next training, which can do without."""
    try:
        on_cpu = {key: part.cpu() for key, part in axes._asdict().items()}
        write_tensors(path, on_cpu, FORMAT.metadata({"digest": axes.digest()}))
        files = sorted(path.parent.glob("*.axes"), key=lambda file: file.stat().st_mtime_ns)
        for old in files[:-KEPT]:
            old.unlink(missing_ok=True)
    except OSError as error:
        logger.warning("ID-EA: the names' axes are not kept for the next training. %s", error)
