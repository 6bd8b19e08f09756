"""Training captions as token ids, with a place for the pseudo-tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import shorten

from torch import Tensor

from ..diffusion.backbone import Backbone, TokenIds
from ..errors import ConfigError, TrainingError
from .captions import PLACEHOLDER

Caption = tuple[TokenIds, TokenIds]  # before and after the person


def tokenize_captions(
    backbone: Backbone, captions: Sequence[str], n: int = 0, labels: Sequence[str] = ()
) -> list[Caption]:
    """The captions, each different one tokenized once.

    Args:
        n: pseudo-tokens of the person.
        labels: names of the captions in errors; default: the captions themselves.

    Raises:
        TrainingError: a caption without a place for the person, or with several.
        ConfigError: a caption that is too long for the text encoder.
    """
    parts = {caption: _tokenize(backbone, caption) for caption in dict.fromkeys(captions)}
    tokenized = [parts[caption] for caption in captions]
    for (before, after), label in zip(tokenized, labels or map(quoted, captions), strict=True):
        require_short(backbone, max(len(before[encoder]) + n + len(after[encoder]) for encoder in before), label)
    return tokenized


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


def fill(captions: Sequence[Caption], tokens: Mapping[str, Sequence[Sequence[Tensor]]]) -> dict[str, list[list]]:
    """Text encoder → the captions' token sequences, with pseudo-tokens in their places.

    Args:
        tokens: text encoder → each caption's pseudo-tokens (n, d_enc).
    """
    return {
        encoder: [[*before[encoder], *own, *after[encoder]] for (before, after), own in zip(captions, rows)]
        for encoder, rows in tokens.items()
    }


def _tokenize(backbone: Backbone, caption: str) -> Caption:
    before, *after = caption.split(PLACEHOLDER)
    if len(after) != 1:
        raise TrainingError(
            f"captions with one {PLACEHOLDER} where the person stands", repr(caption), f"Write {PLACEHOLDER} once."
        )
    return backbone.tokenize(before), backbone.tokenize(after[0])
