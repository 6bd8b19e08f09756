"""Where a person starts: textual ID anchor, cross initialisation, and the axes of names.

Textual ID anchor and cross initialisation: arXiv 2312.15905, sec. 3.2; arXiv 2507.11990, ID anchor. Axes: arXiv
2306.00926, Celeb Basis.

The mean *input* embedding of many celebrity names goes through the text encoder; the hidden states
at its positions, an encoder *output*, initialise the pseudo-tokens, an encoder *input*.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from ..diffusion.backbone import Backbone, TokenIds
from ..errors import ConfigError
from ..families import BASE_MODELS
from ..files.textfile import shipped_lines
from ..text.names import one_form

MIN_NAMES = 32  # for axes that mean something
_BATCH_SIZE = 32  # names

Anchor = Mapping[str, Tensor]
"""Text encoder → its part of the anchor (n, d_enc), float32."""


class NamesBasis(NamedTuple):
    """How names differ, position by position, in the text encoders' input."""

    mean: Anchor  # (n, d_enc)
    axes: Mapping[str, Tensor]
    """Text encoder → principal axes (n, k, d_enc), each as long as the names' standard deviation along it."""


@cache
def celebrity_names() -> tuple[str, ...]:
    """The names of well-known people that ship with the pack, alphabetically."""
    return shipped_lines(__file__, "celebrity_names.txt")


def parse_names(text: str) -> tuple[str, ...]:
    """The lines of `text`, a name or phrase each, without repetitions; the shipped list if there are none."""
    names = tuple(dict.fromkeys(line.strip() for line in one_form(text).splitlines() if line.strip()))
    return names or celebrity_names()


@torch.no_grad()
def cross_initialise(backbone: Backbone, names: Iterable[str], n: int) -> Anchor:
    """The anchor `A` of each text encoder, (n, d_enc).

    Args:
        names: celebrity names, or a single phrase such as "human face".
        n: pseudo-tokens per identity.
    """
    mean, _ = mean_name(backbone, names, n)
    context = backbone.encode({encoder: [list(part)] for encoder, part in mean.items()}).context
    return _by_encoder(backbone, context[0, 1 : n + 1].float())  # right after the start token


@torch.no_grad()
def mean_name(backbone: Backbone, names: Iterable[str], n: int) -> tuple[Anchor, Anchor]:
    """Mean and root mean square of names' input embeddings at each position, in each text encoder (n, d_enc).

    The mean square is over all values at a position: the scale on which names differ. Raises ConfigError if no name has
    n tokens.
    """
    ids = [backbone.tokenize(name) for name in names]
    mean, scale = {}, {}
    for encoder in BASE_MODELS[backbone.base_model].encoders:
        tokens = [name[encoder] for name in ids]
        longest = max(map(len, tokens), default=0)
        if longest < n:
            raise ConfigError(
                f"at least one name or phrase of {n} tokens or more",
                f"{len(tokens)} of at most {longest}",
                'Give full names, one a line, or a phrase such as "human face".',
            )
        columns = [[name[position] for name in tokens if len(name) > position] for position in range(n)]
        parts = [backbone.embed_tokens(encoder, column) for column in columns]  # each (N, d_enc)
        mean[encoder] = torch.stack([part.mean(0) for part in parts])
        scale[encoder] = torch.stack([part.square().mean().sqrt().expand(part.shape[1]) for part in parts])
    return mean, scale


@torch.no_grad()
def spread_of_names(backbone: Backbone, names: Iterable[str], n: int) -> Anchor:
    """How names differ from their mean in the text encoder's output: each encoder's (N · n, d_enc).

    Names with fewer than n tokens are left out.
    """
    ids, encoders = _full_names(backbone, names, n), BASE_MODELS[backbone.base_model].encoders
    rows = []
    for begin in range(0, len(ids), _BATCH_SIZE):
        part = ids[begin : begin + _BATCH_SIZE]
        context = backbone.encode({encoder: [name[encoder] for name in part] for encoder in encoders}).context
        rows.append(context[:, 1 : n + 1].float())
    states = torch.cat(rows)  # (N, n, d)
    return _by_encoder(backbone, (states - states.mean(0)).flatten(0, 1))


@torch.no_grad()
def names_basis(backbone: Backbone, names: Iterable[str], n: int, max_axes: int) -> NamesBasis | None:
    """Mean and principal axes of names' input embeddings (arXiv 2306.00926); None for too few names.

    Names with fewer than n tokens are left out. `max_axes` counts at each position.
    """
    ids = _full_names(backbone, names, n)
    if len(ids) < MIN_NAMES:
        return None
    means, axes = {}, {}
    for encoder in BASE_MODELS[backbone.base_model].encoders:
        columns = [[name[encoder][position] for name in ids] for position in range(n)]
        embeddings = torch.stack([backbone.embed_tokens(encoder, column) for column in columns])  # (n, N, d_enc)
        mean = embeddings.mean(1, keepdim=True)
        _, singular, directions = torch.linalg.svd(embeddings - mean, full_matrices=False)
        largest = directions.gather(-1, directions.abs().argmax(-1, keepdim=True))
        directions = directions * largest.sign()  # the SVD leaves the sign open: the same on all devices
        means[encoder] = mean[:, 0]
        axes[encoder] = (directions * singular[..., None] / len(ids) ** 0.5)[:, :max_axes]
    return NamesBasis(means, axes)


def _full_names(backbone: Backbone, names: Iterable[str], n: int) -> list[TokenIds]:
    """Ids of the names with at least n tokens in each text encoder."""
    ids = [backbone.tokenize(name) for name in names]
    encoders = BASE_MODELS[backbone.base_model].encoders
    return [name for name in ids if all(len(name[encoder]) >= n for encoder in encoders)]


def _by_encoder(backbone: Backbone, states: Tensor) -> Anchor:
    """Hidden states (N, d) by text encoder, (N, d_enc)."""
    encoders = BASE_MODELS[backbone.base_model].encoders
    return dict(zip(encoders, states.split(list(encoders.values()), dim=-1)))
