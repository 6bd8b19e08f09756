"""Training captions as token ids, with a place for the pseudo-tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from .backbone import Backbone, TokenIds
from .captions import PLACEHOLDER
from .errors import TrainingError

Caption = tuple[TokenIds, TokenIds]
"""What stands before and after the person."""


def tokenize_captions(backbone: Backbone, captions: Sequence[str]) -> list[Caption]:
    """The captions, each different one tokenized once.

    Raises:
        TrainingError: one without a place for the person, or with several.
    """
    parts = {caption: _tokenize(backbone, caption) for caption in dict.fromkeys(captions)}
    return [parts[caption] for caption in captions]


def fill(captions: Sequence[Caption], tokens: Mapping[str, Sequence[Sequence[Tensor]]]) -> dict[str, list[list]]:
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
