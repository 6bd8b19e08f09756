"""Textual Inversion files, which hold the tokens alone: the published `learned_embeds.bin`, diffusers', A1111's."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import ConfigError, IdentityFileError
from ...families import UNETS
from ...files.tensorfile import read_metadata, write_atomically, write_tensors
from ...files.weights import UNNAMED, read_weights
from ...text.names import LONGEST, is_name, is_name_character, one_form
from ..base_ref import BaseModelRef
from ..identity import FORMAT, Identity

_PUBLISHED_KEY = re.compile(r"(?P<token>.+)_v(?P<number>\d+)", re.DOTALL)
_A1111_PARAM = "string_to_param"
_CHECKPOINT = "state_dict"
_MANAGED = re.compile(r"string_to_param_dict\.(.+)")
_ENCODERS = {encoder for base in UNETS for encoder in base.encoders}
_SEVERAL = [set(base.encoders) for base in UNETS if len(base.encoders) > 1]
_NAMELESS = {UNNAMED, "*", "emb", "embedding", "embeddings", "param", "tokens", "weight"} | _ENCODERS
_FIX = "Choose a Textual Inversion file of Stable Diffusion 1.x, 2.x or XL."
PLACEHOLDER_TOKEN = "placeholder_token"
"""Entry of `Identity.training`: the token's name in the file that a person came from, for the way back."""

Tokens = Mapping[str, Tensor]


def read_person(path: str | os.PathLike, name: str | None = None, prediction: str = "eps") -> Identity:
    """A person from an identity file or a Textual Inversion file, whatever its name; no value is changed.

    Args:
        name: trigger name; None: the one in the file, else the file's own.
        prediction: of the base model, "eps" or "v"; an identity file has its own.

    Raises:
        IdentityFileError: no such format, a pickle with more than weights in it, or damaged.
        FileNotFoundError: no such file.
    """
    path = Path(path)
    if read_metadata(path).get("format") == FORMAT.name:
        identity = Identity.load(path)
        return identity if name is None else dataclasses.replace(identity, name=name)
    content = read_weights(path)
    tokens, token = _tokens_in(content, path.name)
    base_model, tokens = _by_encoder(tokens, path.name)
    return Identity(
        name=name or _trigger_name(token or path.stem),
        base_ref=BaseModelRef(base_model, prediction, None, heads=8, beta=0.4),
        tokens=tokens,
        training={} if token is None else {PLACEHOLDER_TOKEN: token},
    )


def write_person(identity: Identity, path: str | os.PathLike, to: str) -> Path:
    """Write a person in one of `FORMATS`, in the precision that it has; an existing file is replaced in one move.

    Raises ConfigError for a format that cannot hold the person, or a file name that does not fit the format.
    """
    path = Path(path)
    endings, write = FORMATS[to]
    if path.suffix not in endings:
        raise ConfigError(f"a {to} file to end in {' or '.join(endings)}", path.name, "Change the output's name.")
    return write(identity, path)


def left_out(identity: Identity, to: str) -> list[str]:
    """Parts of a person that a format has no place for."""
    if to == FORMAT.name:
        return []
    parts = {"Adapter": identity.has_adapter, "K/V deltas": bool(identity.kv)}
    return [part for part, there in parts.items() if there]


def _write_published(identity: Identity, path: Path) -> Path:
    token = identity.training.get(PLACEHOLDER_TOKEN)
    if not isinstance(token, str) or _trigger_name(token) != identity.name:
        token = identity.trigger
    rows = _single(identity, "published")
    return _write_pickle(path, {f"{token}_v{i}": row.clone() for i, row in enumerate(rows)})


def _write_diffusers(identity: Identity, path: Path) -> Path:
    """diffusers' `load_textual_inversion`; for SDXL a dict of the two encoders' parts, as its documentation has it."""
    content = _by_key(identity, identity.trigger)
    return write_tensors(path, content, {}) if path.suffix == ".safetensors" else _write_pickle(path, content)


def _write_a1111(identity: Identity, path: Path) -> Path:
    if path.suffix == ".safetensors":
        return write_tensors(path, _by_key(identity, "emb_params"), {})
    content = {
        "string_to_token": {"*": 265},
        _A1111_PARAM: {"*": _single(identity, "a1111 .pt")},
        "name": identity.name,
        "step": int(identity.training.get("steps", 0)),
        "sd_checkpoint": identity.base_ref.base_hash[:10] or None,
        "sd_checkpoint_name": identity.base_checkpoint or None,
    }
    return _write_pickle(path, content)


FORMATS: Mapping[str, tuple[tuple[str, ...], Callable[[Identity, Path], Path]]] = {
    FORMAT.name: ((".safetensors",), lambda identity, path: identity.save(path, dtype=None)),
    "published": ((".bin",), _write_published),
    "diffusers": ((".safetensors", ".bin"), _write_diffusers),
    "a1111": ((".safetensors", ".pt"), _write_a1111),
}
"""Format → endings of its files, and what writes it."""


def _tokens_in(content: Mapping[str, Any], file: str) -> tuple[Tokens, str | None]:
    """The pseudo-tokens by text encoder ("" if the file names none), and the token's name in the file.

    The name is None if the file has none, or a key of the format in its place.
    """
    if set(content) in _SEVERAL:
        return content, None
    if "emb_params" in content:
        return {"": content["emb_params"]}, None
    if isinstance(content.get(_A1111_PARAM), Mapping):
        (tokens, *others) = content[_A1111_PARAM].values() or [None]
        name = content.get("name")
        return {"": tokens}, f"<{name}>" if isinstance(name, str) and _is_persons(name) and not others else None
    if isinstance(content.get(_CHECKPOINT), Mapping):
        return _tokens_in(_embedding_of(content[_CHECKPOINT]), file)
    published = [match for key in content if (match := _PUBLISHED_KEY.fullmatch(key))]
    if published and len(published) == len(content):
        rows = {int(match["number"]): content[match[0]] for match in published}
        tokens = {match["token"] for match in published}
        if len(tokens) == 1 and sorted(rows) == list(range(len(rows))) and all(map(torch.is_tensor, rows.values())):
            return {"": torch.stack([rows[number] for number in sorted(rows)])}, tokens.pop()
    if len(content) == 1:
        (token, tokens), *_ = content.items()
        return {"": tokens}, token if _is_persons(token) else None
    some = ", ".join(sorted(map(str, content))[:5])
    raise IdentityFileError(f"a Textual Inversion file in {file}", f"entries {some}", _FIX)


def _is_persons(token: str) -> bool:
    """Whether a token's name is a person's, not a key of the format."""
    return token.strip("<>").rpartition(".")[2] not in _NAMELESS


def _embedding_of(weights: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The embedding among a trainer's weights, under its token; all of them where none is marked as one."""
    tensors = {key: value for key, value in weights.items() if isinstance(key, str) and torch.is_tensor(value)}
    return {match[1]: value for key, value in tensors.items() if (match := _MANAGED.search(key))} or tensors


def _by_encoder(tokens: Tokens, file: str) -> tuple[str, Tokens]:
    """The base model that the widths belong to, and the tokens (n, d_enc) by its encoders."""
    for encoder, part in tokens.items():
        if not torch.is_tensor(part) or part.ndim not in (1, 2) or not part.is_floating_point():
            got = f"{tuple(part.shape)} of {part.dtype}" if torch.is_tensor(part) else type(part).__name__
            raise IdentityFileError(f"tokens {encoder} of shape (n, d) in {file}", got, _FIX)
    matrices = {encoder: part.detach().reshape(-1, part.shape[-1]).clone() for encoder, part in tokens.items()}
    widths = sorted(part.shape[1] for part in matrices.values())
    for base in UNETS:
        if sorted(base.encoders.values()) == widths:
            return base.key, {e: matrices[e if e in matrices else ""] for e in base.encoders}
    raise IdentityFileError(f"tokens of a known width in {file}", ", ".join(map(str, widths)), _FIX)


def _trigger_name(token: str) -> str:
    """A token's name as a trigger name: "<alice>" → "alice", anything odd in it → "-"."""
    signs = "".join(sign if is_name_character(sign) else " " for sign in one_form(token))
    bare = "-".join(signs.split()).strip("-_")[:LONGEST]
    return bare if is_name(bare) else "person"


def _by_key(identity: Identity, key: str) -> dict[str, Tensor]:
    """The tokens (n, d_enc) by text encoder, or under `key` for a base model with one text encoder."""
    return dict(identity.tokens) if len(identity.tokens) > 1 else {key: _single(identity, key)}


def _single(identity: Identity, to: str) -> Tensor:
    """The tokens (n, d) of a base model with one text encoder."""
    if len(identity.tokens) != 1:
        raise ConfigError(
            f"a person of one text encoder for {to}",
            f"{len(identity.tokens)} of {identity.base.title}",
            "Choose a1111 or diffusers with a .safetensors file.",
        )
    return next(iter(identity.tokens.values()))


def _write_pickle(path: Path, content: dict) -> Path:
    return write_atomically(path, lambda file: torch.save(content, file))
