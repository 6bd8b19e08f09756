"""Prompts as token ids, with a place for the pseudo-tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from textwrap import shorten
from typing import NamedTuple

import torch
from torch import Tensor

from ..diffusion.backbone import Backbone, Prompt, TokenIds, Vectors
from ..diffusion.memory import send
from ..errors import ConfigError, TrainingError
from .captions import PLACEHOLDER


class SplitPrompt(NamedTuple):
    """A prompt for text encoders whose tokens do not depend on the text around: CLIP's."""

    before: TokenIds
    after: TokenIds

    @classmethod
    def read(cls, tokenize: Callable[[str], TokenIds], prompt: str) -> SplitPrompt:
        before, _, after = prompt.partition(PLACEHOLDER)
        return cls(tokenize(before), tokenize(after))

    @property
    def length(self) -> int:
        return max(len(ids) + len(self.after[encoder]) for encoder, ids in self.before.items())


def tokenize_captions(
    backbone: Backbone, captions: Sequence[str], n: int = 0, labels: Sequence[str] = ()
) -> list[Prompt]:
    """The captions, each different one read once.

    Args:
        n: pseudo-tokens of the person.
        labels: names of the captions in errors; default: the captions themselves.

    Raises:
        TrainingError: a caption without a place for the person, or with several.
        ConfigError: a caption that is too long for the text encoder.
    """
    read = {caption: _read(backbone, caption) for caption in dict.fromkeys(captions)}
    prompts = [read[caption] for caption in captions]
    for prompt, label in zip(prompts, labels or map(quoted, captions), strict=True):
        require_short(backbone, prompt.length + n, label)
    return prompts


def require_short(backbone: Backbone, count: int, label: str) -> None:
    """Raise `ConfigError` unless the text encoder reads so many tokens at once."""
    if count > backbone.prompt_length:
        raise too_long(backbone.prompt_length, count, label)


def too_long(max_tokens: int, count: int, label: str = "") -> ConfigError:
    """The error of a prompt that is longer than the text encoder reads at once."""
    return ConfigError(f"captions of at most {max_tokens} tokens", f"{count} {label}".strip(), "Say it in fewer words.")


def quoted(prompt: str) -> str:
    """A prompt as errors name it."""
    return f"in {shorten(prompt, 80, placeholder=' …')!r}"


def fill(prompts: Sequence[SplitPrompt], vectors: Vectors) -> dict[str, list[list[int | Tensor]]]:
    """Text encoder → the prompts' token ids, with vectors in their places."""
    filled: dict[str, list[list[int | Tensor]]] = {}
    for encoder in prompts[0].before:
        own: Sequence[Iterable[Tensor]] = vectors.get(encoder) or [()] * len(prompts)
        filled[encoder] = [[*one.before[encoder], *rows, *one.after[encoder]] for one, rows in zip(prompts, own)]
    return filled


def places_of(prompts: Sequence[SplitPrompt], vectors: Vectors, device: torch.device) -> Tensor | None:
    """Rows (B, n) of the context where the vectors stand, after the start token; None where their numbers differ."""
    encoder = next(iter(vectors), None)
    numbers = {len(rows) for rows in vectors[encoder]} if encoder else set()
    if encoder is None or len(numbers) != 1:
        return None
    first = torch.tensor([[len(prompt.before[encoder]) + 1] for prompt in prompts])
    return send(first + torch.arange(numbers.pop()), device)


def with_vectors(embedded: Tensor, vectors: Tensor, columns: Tensor) -> Tensor:
    """Input embeddings (B, L, d_enc) of prompts with `vectors` (n, d_enc) at `columns` (B, n, 1), differentiable."""
    # Turned twice: the gradients of the prompts add up from the last to the first, as those of `fill` do.
    own = vectors.to(embedded).expand(len(embedded), -1, -1).flip(0)
    return embedded.scatter(1, columns.expand(-1, -1, embedded.shape[-1]), own)


def _read(backbone: Backbone, caption: str) -> Prompt:
    if caption.count(PLACEHOLDER) != 1:
        raise TrainingError(
            f"captions with one {PLACEHOLDER} where the person stands", repr(caption), f"Write {PLACEHOLDER} once."
        )
    return backbone.read(caption)
