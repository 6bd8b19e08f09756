"""People's changes to keys and values in a transformer, at the rows of a text where they act."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ....families import BaseModel
from ....method.kv import FusedKV, WholeKV

Marks = Sequence[Tensor | None]
"""For each person (B, L, 1), the factor of the change at each row of the text; None: it acts on all that layers see."""


class Where(NamedTuple):
    """Where people's changes act during a call of the transformer."""

    marks: Marks
    first: int  # row of the layers over image and text at which the text begins


class KVLayers:
    """The layers of a transformer that make keys and values of text.

    Attributes:
        rules: name of a layer → what it makes, under names in identity files.
        where: where changes act now.
    """

    def __init__(self, transformer: nn.Module, base: BaseModel):
        assert base.transformer is not None and base.transformer.headless is not None
        self.transformer, self.rules = transformer, dict[str, WholeKV | FusedKV]()
        how, self.where = base.transformer.headless, Where((), 0)
        for name, _ in transformer.named_modules():
            for whole in how.separate:
                if match := re.fullmatch(whole.layer, name):
                    self.rules[name] = WholeKV(match.expand(whole.name), whole.text_only)
            for fused in how.fused:
                if match := re.fullmatch(fused.layer, name):
                    self.rules[name] = FusedKV(match.expand(fused.keys), match.expand(fused.values), fused.text_only)

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Name in files → (out, in) of weights, or of their rows."""
        shapes = {}
        for layer, rule in self.rules.items():
            module = cast(nn.Linear, self.transformer.get_submodule(layer))
            if isinstance(rule, WholeKV):
                shapes[rule.name] = (module.out_features, module.in_features)
            else:
                shapes |= dict.fromkeys((rule.keys, rule.values), (module.in_features,) * 2)
        return shapes

    @contextmanager
    def changed(self, states: Sequence[Mapping[str, Tensor]]) -> Iterator[None]:
        """While open, the layers answer with each person's deltas, where `at` says.

        Args:
            states: state dicts of `KVDeltas`, one a person.
        """
        with ExitStack() as stack:
            for layer, rule in self.rules.items():
                hook = self.transformer.get_submodule(layer).register_forward_hook(self._hook(rule, states))
                stack.callback(hook.remove)
            yield

    @contextmanager
    def at(self, where: Where) -> Iterator[None]:
        """While open, changes act there."""
        before, self.where = self.where, where
        try:
            yield
        finally:
            self.where = before

    def recompute(self, block: nn.Module, *inputs: Any) -> Any:
        """A block that is computed again in the backward pass, with the changes of its first time."""
        where = self.where

        def compute(*again: Any) -> Any:
            with self.at(where):
                return block(*again)

        return checkpoint(compute, *inputs, use_reentrant=False)

    def _hook(
        self, rule: WholeKV | FusedKV, states: Sequence[Mapping[str, Tensor]]
    ) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def change(_layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            marks, first = self.where
            for own, state in zip(marks, states):
                if isinstance(rule, FusedKV):
                    output = rule.changed(inputs[0], output, state, own)
                else:
                    output = rule.changed(inputs[0], output, state, own, 0 if rule.text_only else first)
            return output

        return change


def marked(places: Tensor, length: int, scope: str) -> Tensor | None:
    """Marks (B, L, 1) of one scope for a person at `places` (B, n) of texts of `length` rows."""
    if scope == "whole":
        return None
    if scope == "text":
        return torch.ones(len(places), length, 1, device=places.device)
    return torch.zeros(len(places), length, device=places.device).scatter(1, places, 1.0)[..., None]
