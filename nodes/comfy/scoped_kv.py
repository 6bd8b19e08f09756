"""K/V deltas that act only on prompts with the person, as a side branch of the layers."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import comfy.utils
import torch
from comfy.patcher_extension import PatcherInjection
from torch import Tensor
from torch.nn.functional import linear

from ...idea_core.method.kv import DOWN, FULL, UP, FusedKV, layers_of
from .kept_changes import KeptChanges, TextChanges, kept_changes

_UNSCOPED = (
    "The change to keys and values of {} does not act in regions that another node computes itself. "
    "Set kv_scope of Apply ID-Adapter to 'whole model', or use ComfyUI's own masks."
)


@dataclass(frozen=True, eq=False)
class Rows:
    """The batch rows with a person, during a call of the UNet.

    Attributes:
        context: the UNet's text conditions (B, L, d).
        here: key of a person → (B, 1, 1), 1 for each row whose prompt holds the person, else 0; for a transformer
            (B, L, 1), 1 at each token of the text where the person's K/V deltas act.
        kept: changes of the sampling's earlier calls; None: there is no sampling.
        first: row at which the text begins in a transformer's layers.
    """

    context: Tensor | None
    here: Mapping[str, Tensor]
    kept: KeptChanges | None = None
    first: int = 0

    def is_text(self, x: Tensor) -> bool:
        """Whether a layer's input shares memory with the texts: other nodes may give it texts of regions."""
        context = self.context
        return context is not None and x.untyped_storage().data_ptr() == context.untyped_storage().data_ptr()

    def change(self, key: Hashable, x: Tensor, compute: Callable[[], Tensor]) -> Tensor:
        """The result of `compute` for a layer's input, or that of an earlier step with the same texts."""
        text = self._text
        if text is None or self.kept is None or not _is_whole(x, self.context):
            return compute()
        if key not in text.changes:
            change = compute()
            self.kept.keep(text, key, change)
            return change
        return text.changes[key]

    @cached_property
    def _text(self) -> TextChanges | None:
        return None if self.kept is None or self.context is None else self.kept.of(self.context, self.here)


_rows: ContextVar[Rows] = ContextVar("rows", default=Rows(None, {}))  # noqa: B039 - never changed in place


@contextmanager
def rows_marked(context: Tensor | None, here: Mapping[str, Tensor], first: int = 0) -> Iterator[None]:
    """While open, side branches know the rows of each person."""
    before = _rows.set(Rows(context, here, kept_changes(), first))
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
        rows, x = _rows.get(), inputs[0]
        here = rows.here.get(self.key)
        if here is None:
            return output
        if len(here) != len(output) or not rows.is_text(x):
            self.tell(_UNSCOPED)
            return output
        return output + rows.change((self, layer), x, lambda: here.to(output) * self._product(layer, x))

    def _product(self, layer: str, x: Tensor) -> Tensor:
        for weight in self._on(layer, x):
            x = linear(x, weight)
        return x

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
            return self.layers[layer].changed(x, output, state, marks, _rows.get().first)
        changed = self.layers[layer].changed(x, output, state, None)  # all of the prompt, image and text
        return output + marks.to(output) * (changed - output)

    def _state_on(self, like: Tensor) -> dict[str, Tensor]:
        """The deltas on a device, copied there once."""
        place = like.device, like.dtype
        if place not in self._weights:
            self._weights[place] = tuple(weight.to(like) for weight in self.kv.values())
        return dict(zip(self.kv, self._weights[place]))


def watched(options: dict, lost: Callable[[], None]) -> dict:
    """A network's transformer options, under which side branches know where other nodes' patches leave the text.

    Such as stock USO Style Reference, which puts rows of its own before it.

    Args:
        lost: called where the text is not found again; then places in it are unmarked.
    """
    theirs = options.get("patches", {}).get("post_input")
    if not theirs:
        return options
    before: list[Tensor] = []

    def remember(given: dict) -> dict:
        before[:] = [given["txt"]]
        return given

    def find(given: dict) -> dict:
        own, text, rows = before[0], given["txt"], _rows.get()
        added = text.shape[1] - own.shape[1]
        if added > 0 and torch.equal(text[:, added:], own):
            _rows.set(replace(rows, first=added))
        elif added < 0 or (added > 0 and not torch.equal(text[:, : own.shape[1]], own)):
            lost()
            _rows.set(replace(rows, here={key: here for key, here in rows.here.items() if here.shape[1] == 1}))
        return given

    return {**options, "patches": {**options["patches"], "post_input": [remember, *theirs, find]}}


def rows_before_text(network: torch.nn.Module, references: Sequence[Tensor], texts: Sequence[Tensor]) -> int:
    """Rows that Z-Image puts before the prompt's: each reference image's text, or padding where it has none.

    FLUX takes references as images, which come after the text.

    Args:
        references: latents.
        texts: (B, L, d) each, of the first of them.
    """
    multiple = getattr(network, "pad_tokens_multiple", None)
    if not multiple:
        return 0
    lengths = [text.shape[1] for text in texts[: len(references)]]
    lengths += [1] * (len(references) - len(lengths))
    return sum(-(-length // multiple) * multiple for length in lengths)


def _is_whole(x: Tensor, context: Tensor | None) -> bool:
    """Whether a layer's input is the texts themselves, and no part of them."""
    return context is not None and (x.data_ptr(), x.shape, x.stride()) == (
        context.data_ptr(),
        context.shape,
        context.stride(),
    )
