"""Where a person starts: textual ID anchor, cross initialisation, and the axes of names.

Textual ID anchor and cross initialisation: arXiv 2312.15905, sec. 3.2; arXiv 2507.11990, ID anchor. Axes: arXiv
2306.00926, Celeb Basis.

The mean *input* embedding of many celebrity names goes through the text encoder; the hidden states
at its positions, an encoder *output*, initialise the pseudo-tokens, an encoder *input*.

Language models gather a name of several tokens in its last one, so only names of whole words count there. Their output
is no start for their input. Pseudo-tokens may then be rows of the text condition themselves, an encoder *output*.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from ..diffusion.backbone import Backbone, TokenIds
from ..errors import ConfigError
from ..families import BASE_MODELS
from ..files.textfile import shipped_lines
from ..text.captions import PLACEHOLDER
from ..text.names import one_form
from .axes import principal_axes

MIN_NAMES = 32  # for axes that mean something
_BATCH_SIZE = 32  # names
_LEAST_SPREAD = 0.1  # of names along a direction, of the mean one

Anchor = Mapping[str, Tensor]
"""Text encoder → its part of the anchor (n, d_enc), float32; or `ROWS` → rows of the text condition (n, d)."""
ROWS = "rows"
"""Key of pseudo-tokens in the text encoders' output."""


class NamesBasis(NamedTuple):
    """How names differ, position by position, in the text encoders' input or output."""

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
    return by_encoder(backbone, anchor_rows(backbone, names, n))


def enhancer_anchor(backbone: Backbone, names: Iterable[str], n: int) -> Anchor:
    """The anchor of a pretrained ID-Enhancer: that of each text encoder, or a language model's rows under `ROWS`."""
    if BASE_MODELS[backbone.base_model].crosses:
        return cross_initialise(backbone, names, n)
    return {ROWS: anchor_rows(backbone, names, n)}


@torch.no_grad()
def anchor_rows(backbone: Backbone, names: Iterable[str], n: int) -> Tensor:
    """The anchor `A` (n, d): the text encoders' output for the mean name. Arguments as in `cross_initialise`."""
    mean, _ = mean_name(backbone, names, n)
    return _rows_of(backbone, {encoder: part[None] for encoder, part in mean.items()})[0]


@torch.no_grad()
def mean_name(backbone: Backbone, names: Iterable[str], n: int) -> tuple[Anchor, Anchor]:
    """Mean and root mean square of names' input embeddings at each position, in each text encoder (n, d_enc).

    The mean square is over all values at a position: the scale on which names differ. Raises ConfigError if no name has
    n tokens.
    """
    ids = _whole_words(backbone, names)
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
def mean_rows(backbone: Backbone, names: Iterable[str], n: int) -> tuple[Anchor, Anchor]:
    """Mean and standard deviation of names' last n rows of the text condition, both `ROWS` → (n, d).

    Language models gather a name in its last tokens. Raises ConfigError if not two names have n tokens or more.
    """
    by_length: dict[int, list[TokenIds]] = {}
    encoder = next(iter(BASE_MODELS[backbone.base_model].encoders))
    for name in names:
        ids = backbone.tokenize(name)
        by_length.setdefault(len(ids[encoder]), []).append(ids)
    rows = [
        _rows_of(backbone, _embedded(backbone, ids, length))[:, -n:] for length, ids in by_length.items() if length >= n
    ]
    found = torch.cat(rows) if rows else torch.empty(0)
    if len(found) < 2:
        got = f"{len(found)}"
        raise ConfigError(f"at least two names of {n} tokens or more", got, "Give full names, one a line.")
    spread = found.std(0)
    return {ROWS: found.mean(0)}, {ROWS: spread.clamp(min=float(spread.mean()) * _LEAST_SPREAD)}


@torch.no_grad()
def spread_of_names(backbone: Backbone, names: Iterable[str], n: int) -> Tensor:
    """How names differ from their mean in the text encoders' output, (N · n, d).

    Names with fewer than n tokens are left out.
    """
    states = _rows_of(backbone, _embedded(backbone, _full_names(backbone, names, n), n))
    return (states - states.mean(0)).flatten(0, 1)


@torch.no_grad()
def names_basis(
    backbone: Backbone, names: Iterable[str], n: int, max_axes: int, output: bool = False
) -> NamesBasis | None:
    """Mean and principal axes of names' input embeddings (arXiv 2306.00926); None for too few names.

    Names with fewer than n tokens are left out. `max_axes` counts at each position. With `output`, the axes are those
    of the text encoders' output for the names.
    """
    ids = _full_names(backbone, names, n)
    if len(ids) < MIN_NAMES:
        return None
    embedded = _embedded(backbone, ids, n)
    points = {ROWS: _rows_of(backbone, embedded)} if output else embedded
    means, axes = {}, {}
    for encoder, names_points in points.items():
        positions = names_points.movedim(1, 0).contiguous()  # (n, N, d_enc)
        means[encoder], axes[encoder] = principal_axes(positions, max_axes)
    return NamesBasis(means, axes)


def _full_names(backbone: Backbone, names: Iterable[str], n: int) -> list[TokenIds]:
    """Ids of the names with at least n tokens in each text encoder."""
    ids = _whole_words(backbone, names)
    encoders = BASE_MODELS[backbone.base_model].encoders
    return [name for name in ids if all(len(name[encoder]) >= n for encoder in encoders)]


def _whole_words(backbone: Backbone, names: Iterable[str]) -> list[TokenIds]:
    """Ids of names; for a language model, of names whose words are one token each, if there are any."""
    names = list(names)
    ids = [backbone.tokenize(name) for name in names]
    if BASE_MODELS[backbone.base_model].transformer is None:
        return ids
    whole = [one for name, one in zip(names, ids) if all(len(part) == len(name.split()) for part in one.values())]
    return whole or ids


def _embedded(backbone: Backbone, ids: Sequence[TokenIds], n: int) -> dict[str, Tensor]:
    """Text encoder → input embeddings (N, n, d_enc) of the first n tokens of names."""
    embedded = {}
    for encoder in BASE_MODELS[backbone.base_model].encoders:
        columns = [[name[encoder][position] for name in ids] for position in range(n)]
        embedded[encoder] = torch.stack([backbone.embed_tokens(encoder, column) for column in columns], dim=1)
    return embedded


def _rows_of(backbone: Backbone, vectors: Mapping[str, Tensor]) -> Tensor:
    """The text condition's rows (N, n, d) at vectors (N, n, d_enc) that are a prompt of their own."""
    rows, prompt = [], backbone.read(PLACEHOLDER, False)
    for begin in range(0, len(next(iter(vectors.values()))), _BATCH_SIZE):
        parts = {encoder: list(part[begin : begin + _BATCH_SIZE]) for encoder, part in vectors.items()}
        condition = backbone.encode([prompt] * len(next(iter(parts.values()))), parts)
        assert condition.places is not None
        index = condition.places[..., None].expand(-1, -1, condition.context.shape[-1])
        rows.append(condition.context.gather(1, index).float())
    return torch.cat(rows)


def by_encoder(backbone: Backbone, states: Tensor) -> Anchor:
    """Hidden states (N, d) by text encoder, (N, d_enc); ConfigError if they are no start for its input."""
    base = BASE_MODELS[backbone.base_model]
    if not base.crosses:
        got = f"start = cross on {base.title}"
        raise ConfigError("pseudo-tokens that start at names, or in space = output", got, "Set start to names.")
    encoders = base.encoders
    return dict(zip(encoders, states.split(list(encoders.values()), dim=-1)))
