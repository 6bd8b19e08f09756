"""The file of a training's result."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

logger = logging.getLogger(__name__)


class Saves(Protocol):
    """A result that can be written to a file."""

    def save(self, path: Path) -> Path: ...


@dataclass(frozen=True, eq=False)
class Output:
    """Where a training's result goes.

    Attributes:
        path: file of the result; the state of a training that breaks off is saved beside it.
        fingerprint: digest of all that the result depends on.
        save_every: steps between two saves of the state; 0: only when the training breaks off.
        resume: continue a training of the same inputs that broke off.
        base: returns `base_checkpoint` and `base_hash` for the file; called when the training has ended.
        required: whether a failed write is an error; otherwise it is logged, and the result is returned.
    """

    path: Path
    fingerprint: str
    save_every: int = 0
    resume: bool = True
    base: Callable[[], Mapping[str, str]] = dict
    required: bool = True

    @property
    def state_file(self) -> Path:
        return self.path.with_suffix(".training")

    def write(self, result: Saves, what: str) -> None:
        """Save a result; `what` is its name in the log."""
        try:
            result.save(self.path)
        except OSError as error:
            if self.required:
                raise
            logger.warning("ID-EA: %s is trained, but could not be saved. %s", what, error)
