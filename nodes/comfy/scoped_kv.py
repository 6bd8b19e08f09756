"""K/V deltas that act only on prompts with the person, as a side branch of the layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import comfy.utils
import torch
from comfy.patcher_extension import PatcherInjection
from torch import Tensor
from torch.nn.functional import linear

from ...idea_core.method.kv import DOWN, FULL, UP, layers_of

_UNSCOPED = (
    "The change to keys and values of {} does not act in regions that another node computes itself. "
    "Set kv_scope of Apply ID-Adapter to 'whole model', or use ComfyUI's own masks."
)


class Rows(NamedTuple):
    """The batch rows with a person, during a call of the UNet.

    Attributes:
        context: the UNet's text conditions (B, L, d).
        here: key of a person → (B, 1, 1), 1 for each row whose prompt holds the person, else 0.
    """

    context: Tensor | None
    here: Mapping[str, Tensor]


_rows: ContextVar[Rows] = ContextVar("rows", default=Rows(None, {}))  # noqa: B039 - never changed in place


@contextmanager
def rows_marked(context: Tensor | None, here: Mapping[str, Tensor]) -> Iterator[None]:
    """While open, side branches know the rows of each person."""
    before = _rows.set(Rows(context, here))
    try:
        yield
    finally:
        _rows.reset(before)


@dataclass(frozen=True, eq=False)
class SideBranch:
    """K/V deltas beside the layers' own weights, for the rows of prompts with the person.

    ComfyUI adds it to the layers while a MODEL with it is loaded. Clones of the MODEL share it.

    Attributes:
        key: of the person in `Rows`.
        tell: shows the user a notice, with {} for the name.
        strength: factor on the deltas.
    """

    key: str
    tell: Callable[[str], None]
    kv: Mapping[str, Tensor]
    strength: float
    _handles: dict[int, list] = field(default_factory=dict)  # id of a MODEL clone → its hooks; clones unload separately
    _weights: dict[tuple, tuple[Tensor, ...]] = field(default_factory=dict)  # (layer, device, dtype) → matrices

    def injection(self) -> PatcherInjection:
        return PatcherInjection(inject=self._inject, eject=self._eject)

    def _inject(self, patcher) -> None:
        parts = {layer: comfy.utils.get_attr(patcher.model, layer) for layer in layers_of(self.kv)}
        hooks = [part.register_forward_hook(partial(self._add, layer)) for layer, part in parts.items()]
        self._handles.setdefault(id(patcher), []).extend(hooks)

    def _eject(self, patcher) -> None:
        for handle in self._handles.pop(id(patcher), []):
            handle.remove()
        if not self._handles:
            self._weights.clear()

    def _add(self, layer: str, _part, inputs: tuple, output: Tensor) -> Tensor:
        context, rows = _rows.get().context, _rows.get().here.get(self.key)
        if rows is None:
            return output
        change = inputs[0]
        if len(rows) != len(output) or not _same_text(change, context):
            self.tell(_UNSCOPED)
            return output
        for weight in self._on(layer, change):
            change = linear(change, weight)
        return output + rows.to(output) * change

    def _on(self, layer: str, like: Tensor) -> tuple[Tensor, ...]:
        """The layer's delta as matrices to apply one after the other; the strength is in the last."""
        place = layer, like.device, like.dtype
        if place not in self._weights:
            names = (layer + FULL,) if layer + FULL in self.kv else (layer + DOWN, layer + UP)
            *first, last = (self.kv[name].to(like.device, torch.float32) for name in names)
            self._weights[place] = tuple(weight.to(like.dtype) for weight in (*first, self.strength * last))
        return self._weights[place]


def _same_text(one: Tensor, other: Tensor | None) -> bool:
    """Whether two text conditions share memory: other nodes may give a layer texts of their own for regions."""
    return other is not None and one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
