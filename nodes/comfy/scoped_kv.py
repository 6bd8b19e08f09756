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

from ...idea_core.method.kv import DOWN, FULL, UP, FusedKV, layers_of

_UNSCOPED = (
    "The change to keys and values of {} does not act in regions that another node computes itself. "
    "Set kv_scope of Apply ID-Adapter to 'whole model', or use ComfyUI's own masks."
)


class Rows(NamedTuple):
    """The batch rows with a person, during a call of the UNet.

    Attributes:
        context: the UNet's text conditions (B, L, d).
        here: key of a person → (B, 1, 1), 1 for each row whose prompt holds the person, else 0; for a transformer
            (B, L, 1), 1 at each token of the text where the person's K/V deltas act.
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


def marked_rows(key: str) -> Tensor | None:
    """The rows of a person in `Rows`, inside `rows_marked`; None: the person is nowhere."""
    return _rows.get().here.get(key)


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
        hooks = [part.register_forward_hook(partial(self._add, layer)) for layer, part in self._parts(patcher).items()]
        self._handles.setdefault(id(patcher), []).extend(hooks)

    def _parts(self, patcher) -> dict:
        """Key of a layer → its module."""
        return {layer: comfy.utils.get_attr(patcher.model, layer) for layer in layers_of(self.kv)}

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


@dataclass(frozen=True, eq=False)
class FusedBranch(SideBranch):
    """The same for a transformer, at the tokens or prompts that `Rows` names.

    Attributes:
        layers: layer of the network → its keys and values in `kv`.
    """

    layers: Mapping[str, FusedKV] = field(default_factory=dict)

    def _parts(self, patcher) -> dict:
        return {layer: patcher.model.diffusion_model.get_submodule(layer) for layer in self.layers}

    def _add(self, layer: str, _part, inputs: tuple, output: Tensor) -> Tensor:
        rows, x = marked_rows(self.key), inputs[0]
        if rows is None:
            return output
        state, marks = self._state_on(x), self.strength * rows
        if rows.shape[1] > 1:
            return self.layers[layer].changed(x, output, state, marks)
        changed = self.layers[layer].changed(x, output, state, None)  # all of the prompt, image and text
        return output + marks.to(output) * (changed - output)

    def _state_on(self, like: Tensor) -> dict[str, Tensor]:
        """The deltas on a device, copied there once."""
        place = like.device, like.dtype
        if place not in self._weights:
            self._weights[place] = tuple(weight.to(like) for weight in self.kv.values())
        return dict(zip(self.kv, self._weights[place]))


def _same_text(one: Tensor, other: Tensor | None) -> bool:
    """Whether two text conditions share memory: other nodes may give a layer texts of their own for regions."""
    return other is not None and one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
