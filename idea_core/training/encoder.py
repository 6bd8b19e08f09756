"""How a training gets its captions' text conditions: encoded at each step, or once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..diffusion.backbone import Backbone, Prompt, PromptTable, TextCondition
from ..diffusion.memory import send
from .person import PersonModel


class EncodedAnew:
    """Captions encoded with the person's present pseudo-tokens; gradients pass through the text encoders.

    Args:
        captions: those of the training.
    """

    def __init__(self, backbone: Backbone, person: PersonModel, captions: Sequence[Prompt]):
        self._backbone, self._person, self._captions = backbone, person, captions

    @property
    def rows_device(self) -> torch.device:
        """Where `rows` takes the captions' numbers."""
        return torch.device("cpu")

    def rows(self, numbers: Tensor) -> TextCondition:
        """The text condition of some of the training's captions."""
        return self([self._captions[number] for number in numbers.tolist()])

    def __call__(self, prompts: Sequence[Prompt]) -> TextCondition:
        # Tensors, not lists of rows: gradients add up caption by caption, always in the same order.
        vectors = {encoder: [tokens] * len(prompts) for encoder, tokens in self._person.tokens.items()}
        return self._backbone.encode(prompts, vectors)


class EncodedFromTable(EncodedAnew):
    """The training's captions stand ready."""

    def __init__(self, backbone: Backbone, person: PersonModel, captions: Sequence[Prompt], table: PromptTable):
        super().__init__(backbone, person, captions)
        self._table = table

    @property
    def rows_device(self) -> torch.device:
        return self._table.device

    def rows(self, numbers: Tensor) -> TextCondition:
        return self._table.encode(numbers, self._person.tokens)


class EncodedOnce(EncodedAnew):
    """Captions encoded with what never changes; the person's rows are put in later. They wait on the CPU."""

    def __init__(self, backbone: Backbone, person: PersonModel, captions: Sequence[Prompt]):
        super().__init__(backbone, person, captions)
        self._known: dict[int, tuple[Prompt, TextCondition]] = {}  # by the prompt's identity, which it keeps alive
        self._learn(captions)

    def __call__(self, prompts: Sequence[Prompt]) -> TextCondition:
        self._learn(prompts)
        return TextCondition.together([self._known[id(prompt)][1] for prompt in prompts]).map(self._sent)

    @torch.no_grad()
    def _learn(self, prompts: Sequence[Prompt]) -> None:
        new = {id(prompt): prompt for prompt in prompts if id(prompt) not in self._known}
        for key, prompt in new.items():
            self._known[key] = prompt, super().__call__([prompt]).map(lambda part: part.cpu())
        if new:
            self._backbone.free_text()

    def _sent(self, part: Tensor) -> Tensor:
        return send(part, self._backbone.device)


def person_encoder(backbone: Backbone, person: PersonModel, captions: Sequence[Prompt]) -> EncodedAnew:
    """The cheapest way that base model and pseudo-tokens allow; `captions` are those of the training."""
    if person.rows is not None:
        return EncodedOnce(backbone, person, captions)
    table = backbone.tabulate(captions, len(person.anchor))
    return EncodedFromTable(backbone, person, captions, table) if table else EncodedAnew(backbone, person, captions)
