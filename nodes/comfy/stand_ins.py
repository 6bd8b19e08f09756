"""People's vectors among a prompt's tokens, for any tokenizer of ComfyUI that has tokens no prompt holds.

Each name becomes such tokens, the tokenizer reads the prompt as always, and vectors replace the tokens. So chat
templates, weights and several text encoders stay ComfyUI's business. Training and Apply share this way.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from ...idea_core.errors import ConfigError
from ...idea_core.families import BaseModel

Parts = Sequence[str | int]
"""A prompt: texts, and between them the numbers of people."""
Vectors = Mapping[str, Sequence[Tensor]]
"""Text encoder → a person's pseudo-tokens (n, d_enc)."""
Read = Callable[[str], dict[str, list]]
"""A tokenizer's own `tokenize_with_weights`."""

_PERSON = "idea_person"  # attribute of a vector among tokens: the person's key


def spliced(read: Read, tokenizer, base: BaseModel, parts: Parts, people: Sequence[Vectors]) -> dict[str, list]:
    """ComfyUI's tokens of a prompt, with people's vectors in the places of their names.

    Text encoders that hold no vectors read the prompt without the names.

    Raises:
        ConfigError: more people than the tokenizer has free tokens.
    """
    assert base.transformer is not None
    tokens = dict(read(_text(parts, [""] * len(people))))
    for encoder, stand_ins in base.transformer.stand_ins.items():
        text = "".join(part for part in parts if isinstance(part, str))
        free = [one for one in stand_ins if one not in text][: len(people)]
        if len(free) < len(people):
            raise ConfigError(f"at most {len(free)} people in a prompt", str(len(people)), "Apply fewer people.")
        lengths = [len(person[encoder]) for person in people]
        marked = read(_text(parts, [stand_in * count for stand_in, count in zip(free, lengths)]))
        vectors = {
            _id(reader_of(tokenizer, encoder), stand_in): itertools.cycle(person[encoder])
            for stand_in, person in zip(free, people)
        }
        tokens[encoder] = [[_replaced(entry, vectors) for entry in chunk] for chunk in marked[encoder]]
    return tokens


def signed(vectors: Tensor, person: str) -> list[Tensor]:
    """Pseudo-tokens (n, d_enc) that say whose they are.

    People whose own vectors are rows of the text condition may have equal ones here: an ID-Enhancer's mean name.
    """
    rows = list(vectors.unbind())
    for row in rows:
        setattr(row, _PERSON, person)
    return rows


def stands_for(token, vectors: Sequence[Tensor], person: str = "") -> bool:
    """Whether a token is one of a person's vectors; one that ComfyUI or another pack put there is not signed."""
    if not isinstance(token, Tensor):
        return False
    signature = getattr(token, _PERSON, person)
    return signature == person and any(token is one or _equal(token, one) for one in vectors)


def places(chunks: Sequence[Sequence[tuple]], vectors: Sequence[Tensor], length: int, person: str = "") -> list[int]:
    """Rows of a text condition of `length` rows at which vectors of a person stand.

    Encoders that cut a template off begin later than their tokens.
    """
    flat = [entry[0] for chunk in chunks for entry in chunk]
    cut = len(flat) - length
    found = [number - cut for number, token in enumerate(flat) if stands_for(token, vectors, person)]
    return [row for row in found if 0 <= row < length]


def reader_of(tokenizer, encoder: str):
    """The part of a tokenizer that reads for one text encoder; some have CLIP's name before their own."""
    return getattr(tokenizer, encoder, None) or getattr(tokenizer, f"clip_{encoder}")


def _text(parts: Parts, names: Sequence[str]) -> str:
    """The prompt with other names. A blank before a name goes: language models' words carry it themselves."""
    pieces = []
    for part, after in itertools.zip_longest(parts, parts[1:]):
        if isinstance(part, str):
            pieces.append(part[:-1] if isinstance(after, int) and part[-1:].isspace() else part)
        else:
            pieces.append(names[part])
    return "".join(pieces)


def _id(reader, stand_in: str) -> int:
    ids = reader.tokenizer(stand_in)["input_ids"][reader.tokens_start :]
    return ids[0]


def _replaced(entry: tuple, vectors: Mapping[int, Iterator[Tensor]]) -> tuple:
    token, *rest = entry
    return (next(vectors[token]), *rest) if isinstance(token, int) and token in vectors else entry


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one.to(other), other)
