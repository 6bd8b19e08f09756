"""Changes to weights that make keys and values of text (arXiv 2507.11990, ID-Adapter; low rank: arXiv 2106.09685).

Keys are those of ComfyUI's own LoRA loader, so a stock LoraLoader applies them too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear, pad

UP, DOWN, FULL = ".lora_up.weight", ".lora_down.weight", ".diff"


class KVDeltas:
    """One trainable delta (out, in) per key or value layer, zero at the start.

    Args:
        shapes: layer → (out, in).
        rank: rank of each delta; 0 trains full matrices.
        generator: on the CPU, for the low-rank layers' down matrices.
    """

    def __init__(
        self, shapes: Mapping[str, tuple[int, int]], rank: int, generator: torch.Generator, device: torch.device
    ):
        self._weights: dict[str, Tensor] = {}
        for name, (rows, columns) in sorted(shapes.items()):  # each backbone has its own order
            if rank == 0:
                self._weights[name + FULL] = torch.zeros(rows, columns, device=device)
                continue
            width = min(rank, rows, columns)
            down = torch.randn(width, columns, generator=generator) * columns**-0.5
            self._weights[name + UP] = torch.zeros(rows, width, device=device)
            self._weights[name + DOWN] = down.to(device)
        for weight in self._weights.values():
            weight.requires_grad_()

    def parameters(self) -> Iterable[Tensor]:
        return self._weights.values()

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """The state dict, differentiable."""
        return self._weights

    def state_dict(self) -> dict[str, Tensor]:
        return {key: weight.detach() for key, weight in self._weights.items()}


@contextmanager
def kv_added(layers: Mapping[str, torch.nn.Module], deltas: Mapping[str, Tensor], kept: bool = False) -> Iterator[None]:
    """While open, each layer answers as if its delta were added to its weight.

    The weight itself stays: half precision would round so small a change away, and nothing adds to quantised weights.

    Args:
        deltas: a state dict of either kind; live weights are read at each call.
        kept: keep each layer's change as long as its input is the same tensor, which is one text in all steps of a
            sampling. Then deltas and texts must not be written to.
    """

    def hook(name: str) -> Callable[[torch.nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        last: list[tuple[Tensor, Tensor]] = []  # input and change

        def add(_layer: torch.nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            x = inputs[0]
            if last and last[0][0] is x:
                return output + last[0][1]
            change = _applied(deltas, name, x)
            if kept:
                last[:] = [(x, change)]
            return output + change

        return add

    with ExitStack() as stack:
        for name, layer in layers.items():
            stack.callback(layer.register_forward_hook(hook(name)).remove)
        yield


class FusedKV(NamedTuple):
    """Names in files of the keys and values that one layer makes together with the queries.

    Its output (B, L, ≥ 3h) holds queries, keys and values of width h one after the other, and what else it makes.
    """

    keys: str
    values: str
    text_only: bool  # whether the layer sees text alone; otherwise the text comes before the image

    def changed(
        self, x: Tensor, output: Tensor, state: Mapping[str, Tensor], marks: Tensor | None, first: int = 0
    ) -> Tensor:
        """The layer's output for `x` (B, L, h) with the deltas in `state`.

        Args:
            marks: (B, L_text, 1), factor of the change at each token of the text; None: it acts on all of `x`.
            first: row at which the text begins.
        """
        change, width = _on_text((self.keys, self.values), x, state, marks, first), x.shape[-1]
        return output + pad(change, (width, output.shape[-1] - 3 * width))


class WholeKV(NamedTuple):
    """Name in files of the keys, or values, that are a layer's whole output (B, L, h)."""

    name: str
    text_only: bool  # whether the layer sees text alone; otherwise the text comes after the image

    def changed(
        self, x: Tensor, output: Tensor, state: Mapping[str, Tensor], marks: Tensor | None, first: int = 0
    ) -> Tensor:
        """The layer's output for `x` (B, L, h) with the delta in `state`.

        Args:
            marks: (B, L_text, 1), factor of the change at each token of the text; None: it acts on all of `x`.
            first: row at which the text begins.
        """
        return output + _on_text((self.name,), x, state, marks, first)


def _on_text(names: Sequence[str], x: Tensor, state: Mapping[str, Tensor], marks: Tensor | None, first: int) -> Tensor:
    """Changes of keys and values (B, L, names × h) beside each other, zero but at the text; arguments as above."""
    seen = x if marks is None else x[:, first : first + marks.shape[1]]
    change = torch.cat([_applied(state, name, seen) for name in names], dim=-1)
    if marks is None:
        return change
    change = change * marks[:, : seen.shape[1]].to(change)
    return pad(change, (0, 0, first, x.shape[1] - first - seen.shape[1]))


def _applied(state: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    """``ΔW x`` without the whole ΔW: a transformer's are large."""
    if name + FULL in state:
        return linear(x, state[name + FULL].to(x))
    return linear(linear(x, state[name + DOWN].to(x)), state[name + UP].to(x))


def delta_of(state: Mapping[str, Tensor], name: str) -> Tensor:
    """ΔW (out, in) of the layer `name` from a state dict of either kind, in single precision."""
    if name + FULL in state:
        return state[name + FULL].float()
    return state[name + UP].float() @ state[name + DOWN].float()


def shape_of(state: Mapping[str, Tensor], name: str) -> tuple[int, int]:
    """(out, in) of the layer `name`."""
    left, right = (FULL, FULL) if name + FULL in state else (UP, DOWN)
    return state[name + left].shape[0], state[name + right].shape[1]


def layers_of(state: Iterable[str]) -> dict[str, set[str]]:
    """Layer → suffixes of its keys in a state dict; a foreign key is its own layer, with the suffix ""."""
    layers: dict[str, set[str]] = {}
    for key in state:
        suffix = next((s for s in (UP, DOWN, FULL) if key.endswith(s)), "")
        layers.setdefault(key.removesuffix(suffix), set()).add(suffix)
    return layers
