"""Textual ID anchor, cross initialisation, and the axes of names: where a person starts, and which ways lead on.

Textual ID anchor and cross initialisation: arXiv 2312.15905, sec. 3.2; arXiv 2507.11990, ID anchor. Axes: arXiv
2306.00926, Celeb Basis.

The mean *input* embedding of many celebrity names goes through the text encoder; the hidden states
at its positions, an encoder *output*, initialise the pseudo-tokens, an encoder *input*.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from typing import NamedTuple

import torch
from torch import Tensor

from ..diffusion.backbone import Backbone
from ..errors import ConfigError
from ..families import BASE_MODELS
from ..text.names import one_form

LEAST_NAMES = 32  # from which axes can be told
_NAMES_AT_ONCE = 32

Anchor = Mapping[str, Tensor]
"""Text encoder → its part of the anchor (n, d_enc), float32."""


class NamesBasis(NamedTuple):
    """How names differ, position by position, as the text encoders are given them."""

    mean: Anchor  # (n, d_enc)
    axes: Mapping[str, Tensor]
    """Text encoder → principal axes (n, k, d_enc), each as long as the names' standard deviation along it."""


@cache
def celebrity_names() -> tuple[str, ...]:
    """The names of well-known people that ship with the pack, alphabetically."""
    text = resources.files(__package__).joinpath("data/celebrity_names.txt").read_text("utf-8")
    return tuple(text.split("\n")[:-1])


def parse_names(text: str) -> tuple[str, ...]:
    """A user's own list, one name or phrase a line, each once; the shipped list where there is none."""
    names = tuple(dict.fromkeys(line.strip() for line in one_form(text).splitlines() if line.strip()))
    return names or celebrity_names()


@torch.no_grad()
def cross_initialise(backbone: Backbone, names: Iterable[str], n: int) -> Anchor:
    """The anchor `A` of each text encoder, (n, d_enc).

    Args:
        names: celebrity names, or a single phrase such as "human face".
        n: pseudo-tokens per identity.

    Raises:
        ConfigError: no name has a token for each of the n positions.
    """
    mean, _ = mean_name(backbone, names, n)
    context = backbone.encode({encoder: [list(part)] for encoder, part in mean.items()}).context
    rows = context[0, 1 : n + 1].float()  # (n, d), right after the start token
    encoders = BASE_MODELS[backbone.base_model].encoders
    return dict(zip(encoders, rows.split(list(encoders.values()), dim=-1)))


@torch.no_grad()
def mean_name(backbone: Backbone, names: Iterable[str], n: int) -> tuple[Anchor, Anchor]:
    """Of names' input embeddings at each position, in each text encoder (n, d_enc): mean and root mean square.

    The mean square is one of all values at a position: a scale on which names differ.

    Raises:
        ConfigError: no name has a token for each of the n positions.
    """
    ids = [backbone.tokenize(name) for name in names]
    encoders = BASE_MODELS[backbone.base_model].encoders
    mean, scale = {}, {}
    for encoder in encoders:
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
    """How names differ from their mean, as the text encoder reads them: each encoder's (N · n, d_enc).

    Args:
        names: those with fewer than n tokens are left out.
    """
    ids = [backbone.tokenize(name) for name in names]
    encoders = BASE_MODELS[backbone.base_model].encoders
    ids = [name for name in ids if all(len(name[encoder]) >= n for encoder in encoders)]
    rows = []
    for begin in range(0, len(ids), _NAMES_AT_ONCE):
        part = ids[begin : begin + _NAMES_AT_ONCE]
        context = backbone.encode({encoder: [name[encoder] for name in part] for encoder in encoders}).context
        rows.append(context[:, 1 : n + 1].float())
    states = torch.cat(rows)  # (N, n, d)
    spread = (states - states.mean(0)).flatten(0, 1)
    return dict(zip(encoders, spread.split(list(encoders.values()), dim=-1)))


@torch.no_grad()
def names_basis(backbone: Backbone, names: Iterable[str], n: int, most: int) -> NamesBasis | None:
    """Mean and principal axes of names' input embeddings (arXiv 2306.00926); None for too few names.

    Args:
        names: those with fewer than n tokens are left out.
        most: axes at each position.
    """
    ids = [backbone.tokenize(name) for name in names]
    encoders = BASE_MODELS[backbone.base_model].encoders
    ids = [name for name in ids if all(len(name[encoder]) >= n for encoder in encoders)]
    if len(ids) < LEAST_NAMES:
        return None
    means, axes = {}, {}
    for encoder in encoders:
        columns = [[name[encoder][position] for name in ids] for position in range(n)]
        embeddings = torch.stack([backbone.embed_tokens(encoder, column) for column in columns])  # (n, N, d_enc)
        mean = embeddings.mean(1, keepdim=True)
        _, singular, directions = torch.linalg.svd(embeddings - mean, full_matrices=False)
        largest = directions.gather(-1, directions.abs().argmax(-1, keepdim=True))
        directions = directions * largest.sign()  # which way an axis points is left open: the same on all devices
        means[encoder] = mean[:, 0]
        axes[encoder] = (directions * singular[..., None] / len(ids) ** 0.5)[:, :most]
    return NamesBasis(means, axes)
