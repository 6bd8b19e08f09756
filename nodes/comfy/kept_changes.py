"""Changes to keys and values, kept over the steps of a sampling: a text that stays the same gives the same ones."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from torch import Tensor, equal

TEXTS = 4  # batches of prompts that a step may be made of
MOST_BYTES = 256 * 2**20  # of a sampling's changes


@dataclass(eq=False)
class TextChanges:
    """The changes for one batch of texts.

    Attributes:
        context: the UNet's text conditions (B, L, d).
        here: key of a person → (B, 1, 1), as in `Rows`.
    """

    context: Tensor
    here: Mapping[str, Tensor]
    changes: dict[Hashable, Tensor] = field(default_factory=dict)

    def are_of(self, context: Tensor, here: Mapping[str, Tensor]) -> bool:
        """Whether a call has these texts, equal to the bit; the device is waited for."""
        return here.keys() == self.here.keys() and all(
            _same(mine, theirs)
            for mine, theirs in ((self.context, context), *((self.here[key], here[key]) for key in here))
        )


class KeptChanges:
    """The changes of one sampling, for the batches of texts that were seen last."""

    def __init__(self) -> None:
        self._texts: list[TextChanges] = []

    def of(self, context: Tensor, here: Mapping[str, Tensor]) -> TextChanges:
        """Those of a call of the UNet; empty ones for texts that are new."""
        for known in self._texts:
            if known.are_of(context, here):
                return known
        new = TextChanges(context.clone(), {key: rows.clone() for key, rows in here.items()})
        self._texts = [new, *self._texts[: TEXTS - 1]]
        return new

    def keep(self, text: TextChanges, key: Hashable, change: Tensor) -> None:
        """Keep a change, if there is room."""
        sizes = [one.nbytes for known in self._texts for one in known.changes.values()]
        if sum(sizes) + change.nbytes <= MOST_BYTES:
            text.changes[key] = change


class Samplings:
    """The changes of the samplings that are going on, each found by an object that lives as long as it does."""

    def __init__(self) -> None:
        self._kept: WeakKeyDictionary[object, KeptChanges] = WeakKeyDictionary()

    @contextmanager
    def going_on(self, conds: list) -> Iterator[None]:
        """While open, `kept_changes` are those of the sampling with these conditions.

        ComfyUI makes the objects in "model_conds" when a sampling begins, and drops them when it ends.
        """
        entries = (entry for part in conds for entry in part or ())
        owner = next(
            (one for one in (entry.get("model_conds", {}).get("c_crossattn") for entry in entries) if one), None
        )
        before = _present.set(None if owner is None else self._kept.setdefault(owner, KeptChanges()))
        try:
            yield
        finally:
            _present.reset(before)


_present: ContextVar[KeptChanges | None] = ContextVar("kept changes", default=None)


def kept_changes() -> KeptChanges | None:
    """Those of the present sampling, inside `Samplings.going_on`; None: there is none in this thread."""
    return _present.get()


def _same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.device == other.device and equal(one, other)
