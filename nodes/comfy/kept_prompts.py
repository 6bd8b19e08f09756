"""Prompts of a training as ComfyUI's CLIP tokenizes them, kept: each tokenization makes the device wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from ...idea_core.diffusion.backbone import TextCondition
from ...idea_core.diffusion.memory import send
from ...idea_core.text.tokenized import with_vectors

Joined = Callable[[Sequence[tuple[Tensor, Tensor]]], TextCondition]
"""Hidden states and pooled output of each text encoder → text condition."""


class KeptPrompts:
    """A `PromptTable` of ComfyUI's text encoders.

    Args:
        models: ComfyUI's `SDClipModel`s by their names in identity files, on `device`.
        prompts: text encoder → each prompt's ids, with a vector in place of each pseudo-token.
        encoded: encodes with one of the models, given by name, a batch of prompts that it has tokenized.
        joined: puts the outputs of the text encoders together.
    """

    device = torch.device("cpu")  # ComfyUI reads each prompt's number of tokens on the host

    def __init__(
        self,
        models: Mapping[str, torch.nn.Module],
        prompts: Mapping[str, Sequence[Sequence[int | Tensor]]],
        device: torch.device,
        encoded: Callable[[str, int], tuple[Tensor, Tensor]],
        joined: Joined,
    ):
        self._models, self._device, self._encoded, self._joined = models, device, encoded, joined
        with torch.no_grad():
            self._tokenized = {name: model.process_tokens(prompts[name], device) for name, model in models.items()}
        columns = {name: [_columns(prompt) for prompt in prompts[name]] for name in models}
        self._columns = {name: torch.tensor(own, device=device)[..., None] for name, own in columns.items()}

    def encode(self, rows: Tensor, vectors: Mapping[str, Tensor]) -> TextCondition:
        numbers, rows = rows.tolist(), send(rows, self._device)
        outputs = []
        for name, model in self._models.items():
            embeds, mask, counts, *others = self._tokenized[name]
            filled = with_vectors(embeds[rows], vectors[name], self._columns[name][rows])
            with _tokenizing(model, (filled, mask[rows], [counts[number] for number in numbers], *others)):
                outputs.append(self._encoded(name, len(numbers)))
        return self._joined(outputs)


def _columns(prompt: Sequence[int | Tensor]) -> list[int]:
    return [column for column, token in enumerate(prompt) if isinstance(token, Tensor)]


@contextmanager
def _tokenizing(model: torch.nn.Module, tokenized: tuple) -> Iterator[None]:
    """While open, the text encoder tokenizes to this, whatever it is given."""
    before = vars(model).get("process_tokens")  # another pack's own, if any
    model.process_tokens = lambda *_args, **_kwargs: tokenized
    try:
        yield
    finally:
        del model.process_tokens
        if before is not None:
            model.process_tokens = before
