"""Trained people in a flow-matching pipeline: names in prompts, rows, adapters, keys and values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ....errors import BaseModelError
from ....families import BASE_MODELS
from ....identity.identity import Identity
from ....method.kv import FULL, UP, layers_of, shape_of
from ....text.prompts import split_prompt
from ..applied import require_family, require_names_apart
from ..text import family_of
from .language import LanguageModel
from .layers import KVLayers, Where, marked
from .networks import NETWORKS


class PeopleText(NamedTuple):
    """A prompt with people in it.

    Attributes:
        context: (1, L, d).
        marks: (1, P, L), 1 at each row where a person's change to keys and values acts.
    """

    context: Tensor
    marks: Tensor


class FlowPeople:
    """Identities applied to one pipeline, which stays unchanged; arguments and errors as of `People`."""

    def __init__(self, pipeline: Any, identities: Sequence[Identity], strength: float = 1.0, kv_strength: float = 1.0):
        # In an order of their own: sums do not depend on who was given first, not even by rounding.
        self.identities, self.strength = tuple(sorted(identities, key=lambda one: one.name)), strength
        self.names = [identity.name for identity in self.identities]
        require_names_apart(self.names)
        family = family_of(pipeline)
        require_family(self.identities, family)
        self.base = BASE_MODELS[family]
        assert self.base.transformer is not None and self.base.transformer.headless is not None
        self.how = self.base.transformer.headless
        self.text, self._transformer = LanguageModel(pipeline, self.base), pipeline.transformer
        self._network = NETWORKS[self.base.pipeline](pipeline)
        self._kv = KVLayers(pipeline.transformer, self.base)
        for identity in self.identities if kv_strength else ():
            _require_layers(identity, self._kv.shapes)
        self._states = [_scaled(one.kv, kv_strength, pipeline.transformer) for one in self.identities]

    @torch.no_grad()
    def encode(self, prompt: str) -> PeopleText:
        """``y' = y + strength · Σ difference`` of the people who are named; weights in brackets are plain text.

        Beside other people an adapter acts at its person's own rows alone: in the words between them, people mix.

        Raises:
            ConfigError: `{}` with several people, or a prompt that is too long.
        """
        encoder = next(iter(self.base.encoders))
        vectors = [[identity.tokens[encoder].float()] for identity in self.identities]
        context, places = self.text.encode(self.text.read(split_prompt(prompt, self.names)), vectors)
        for identity, rows in zip(self.identities, places):
            if identity.rows is not None and rows:
                own = identity.rows.to(context).repeat(len(rows) // len(identity.rows), 1)
                context = context.index_copy(1, torch.tensor(rows, device=context.device), own[None])
        alone = sum(map(bool, places)) == 1
        differences = [
            self._difference(identity, context, None if alone else rows)
            for identity, rows in zip(self.identities, places)
            if rows
        ]
        marks = [self._marks(*one, context) for one in zip(self.identities, places)]
        return PeopleText(
            context + self.strength * sum(differences),
            torch.stack(marks, dim=1) if marks else context.new_zeros(1, 0, context.shape[1]),
        )

    def inputs(self, prompt: str, negative: str) -> dict[str, Tensor]:
        """What `arguments` needs of a prompt and a negative prompt: each (1, …)."""
        wanted, unwanted = self.encode(prompt), self.encode(negative)
        return {
            "prompt_embeds": wanted.context,
            "marks": wanted.marks,
            "negative_prompt_embeds": unwanted.context,
            "negative_marks": unwanted.marks,
        }

    def arguments(self, inputs: Sequence[Mapping[str, Tensor]], guidance: float) -> dict[str, Any]:
        """The pipeline's arguments for prompts of one length each.

        Args:
            guidance: scale of classifier-free guidance; 1 turns it off.
        """
        kind = {"device": self._transformer.device, "dtype": self._transformer.dtype}
        texts: dict[str, Any] = {}
        for name in ("prompt_embeds", "negative_prompt_embeds"):
            rows = [one[name][0].to(**kind) for one in inputs]
            texts[name] = self._network.joined(rows)
        return {**texts, "guidance_scale": guidance - 1 + self.how.unguided}

    @contextmanager
    def drawing(self, inputs: Sequence[Mapping[str, Tensor]]) -> Iterator[None]:
        """Inside, the transformer has the people's keys and values, where `inputs` have the people."""
        if not any(self._states):
            yield
            return
        with self._kv.changed([state for state in self._states if state]):
            hook = self._transformer.register_forward_pre_hook(self._placing(inputs), with_kwargs=True)
            try:
                yield
            finally:
                hook.remove()

    def _placing(self, inputs: Sequence[Mapping[str, Tensor]]) -> Any:
        """A hook that says which rows of a call hold whom: the texts that the pipeline passes on are the prompts'."""
        kind = {"device": self._transformer.device, "dtype": self._transformer.dtype}
        known = [
            (one[f"{sign}prompt_embeds"][0].to(**kind), one[f"{sign}marks"][0].to(kind["device"]))
            for one in inputs
            for sign in ("", "negative_")
        ]
        changing = [number for number, state in enumerate(self._states) if state]

        def place(_module: nn.Module, called: tuple[Any, ...], options: dict[str, Any]) -> None:
            texts, first = self._network.called(called, options)
            found = [_marks_of(text, known) for text in texts]  # (P, L) each
            length = max(marks.shape[1] for marks in found)
            padded = torch.stack([nn.functional.pad(marks, (0, length - marks.shape[1])) for marks in found])
            marks = [padded[:, number, :, None] for number in changing]
            whole = [self.identities[number].kv_scope == "whole" for number in changing]
            self._kv.where = Where([None if all_over else own for all_over, own in zip(whole, marks)], first)

        return place

    def _marks(self, identity: Identity, rows: list[int], context: Tensor) -> Tensor:
        """Whether a person's change to keys and values acts at each row (1, L) of a prompt."""
        if not rows:
            return context.new_zeros(1, context.shape[1])
        places = torch.tensor([rows], device=context.device)
        marks = marked(places, context.shape[1], identity.kv_scope)
        return context.new_ones(1, context.shape[1]) if marks is None else marks[..., 0]

    def _difference(self, identity: Identity, context: Tensor, only: list[int] | None) -> Tensor | float:
        """The adapter's difference (1, L, d), zero at other rows than `only`."""
        if identity.grounding is None:
            return 0.0
        adapter = identity.build_adapter(context.device)
        difference = adapter.difference(context, identity.grounding.to(context))
        if only is None:
            return difference
        rows = torch.tensor(only, device=context.device)
        return torch.zeros_like(difference).index_copy(1, rows, difference[:, rows])


def _scaled(state: Mapping[str, Tensor], strength: float, transformer: Any) -> dict[str, Tensor]:
    """A state dict of `KVDeltas` at a strength, where the transformer is, in its precision; none at 0."""
    return {
        key: (strength * tensor.float() if key.endswith((UP, FULL)) else tensor).to(
            transformer.device, transformer.dtype
        )
        for key, tensor in (state.items() if strength else ())
    }


def _marks_of(text: Tensor, known: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Marks (P, L) of the known text that a call has."""
    return next(marks for one, marks in known if one.shape == text.shape and torch.equal(one, text))


def _require_layers(identity: Identity, shapes: Mapping[str, tuple[int, int]]) -> None:
    for name in layers_of(identity.kv):
        wanted = shape_of(identity.kv, name)
        if shapes.get(name) != wanted:
            raise BaseModelError(
                f"a base model with {name} of shape {wanted}",
                str(shapes.get(name, "none")),
                f"{identity.trigger} was trained on {identity.base_checkpoint or 'another checkpoint'}: "
                "use that, or a K/V strength of 0.",
            )
