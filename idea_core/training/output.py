"""Where the result of a training goes, and what is saved of one that breaks off."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..identity.identity import Identity

logger = logging.getLogger(__name__)


class Saves(Protocol):
    """A result that can be written to a file."""

    def save(self, path: Path) -> Path: ...


@dataclass(frozen=True, eq=False)
class Output:
    """Where a training's result goes.

    Attributes:
        path: of the file; the state of a training that breaks off lies beside it.
        fingerprint: of all that the result depends on.
        save_every: steps between two saves of that state; 0: only when the training breaks off.
        resume: go on with a training of the same inputs that broke off.
        base: `base_checkpoint` and `base_hash` of the file; asked for when the training has ended.
        required: whether a file that cannot be written is an error; else the result is returned all the same.
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


def save_partial(result: Callable[[], Identity], path: Path, steps: int) -> None:
    """Save what a training that broke off had learnt, beside where its result would be.

    The error that broke it is on its way, and is not hidden by another one.
    """
    path = path.with_stem(f"{path.stem}-step-{steps:05}")
    try:
        identity = result()
        identity.save(path)
        logger.info("ID-EA: what %s had learnt in %d steps is saved: %s", identity.trigger, steps, path)
    except Exception as error:
        logger.warning("ID-EA: what was learnt could not be saved. %s", error)
