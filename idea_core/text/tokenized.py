"""Training captions as token ids, with a place for the pseudo-tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from textwrap import shorten

from ..diffusion.backbone import Backbone, TokenIds
from ..errors import ConfigError, TrainingError
from .captions import PLACEHOLDER

Caption = tuple[TokenIds, TokenIds]
"""What stands before and after the person."""


def tokenize_captions(
    backbone: Backbone, captions: Sequence[str], n: int = 0, whose: Sequence[str] = ()
) -> list[Caption]:
    """The captions, each different one tokenized once.

    Args:
        n: pseudo-tokens of the person.
        whose: what each caption belongs to, for errors; default: the caption itself.

    Raises:
        TrainingError: one without a place for the person, or with several.
        ConfigError: one that is too long for the text encoder.
    """
    parts = {caption: _tokenize(backbone, caption) for caption in dict.fromkeys(captions)}
    found = [parts[caption] for caption in captions]
    for (before, after), said in zip(found, whose or map(quoted, captions), strict=True):
        require_short(backbone, max(len(before[encoder]) + n + len(after[encoder]) for encoder in before), said)
    return found


def require_short(backbone: Backbone, count: int, whose: str) -> None:
    """Raise `ConfigError` unless the text encoder reads so many tokens at once."""
    if count > backbone.prompt_length:
        raise too_long(backbone.prompt_length, count, whose)


def too_long(most: int, count: int, whose: str = "") -> ConfigError:
    """The error of a prompt that is longer than the text encoder reads at once."""
    return ConfigError(f"captions of at most {most} tokens", f"{count} {whose}".strip(), "Say it in fewer words.")


def quoted(prompt: str) -> str:
    """A prompt as errors name it."""
    return f"in {shorten(prompt, 80, placeholder=' …')!r}"


def fill(captions: Sequence[Caption], tokens: Mapping[str, Iterable[Iterable]]) -> dict[str, list[list]]:
    """Text encoder → the captions' token sequences, with pseudo-tokens in their places.

    Args:
        tokens: text encoder → of each caption its pseudo-tokens (n, d_enc).
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
