"""New identities from trained ones: mixed, renamed, made smaller, or with something left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..errors import ConfigError
from ..method.kv import DOWN, FULL, UP, delta_of, layers_of
from .identity import Identity


def blend(identities: Sequence[Identity], weights: Sequence[float], name: str) -> Identity:
    """A person between others of one base model: a weighted mean of all that they hold.

    K/V deltas are mixed exactly, at the sum of their ranks. The Adapters' weights are mixed, which is near their mean
    where they started alike (the same settings and seed); the face embedding is the normalised mean.

    Args:
        weights: one per identity, not all 0; their sum counts as 1.

    Raises:
        ConfigError: people who do not fit together, or weights that do not fit them.
    """
    _require_alike(identities)
    if len(weights) != len(identities) or not all(w >= 0 for w in weights) or not sum(weights) > 0:
        expected = f"{len(identities)} weights of at least 0, not all 0"
        raise ConfigError(expected, ", ".join(f"{w:g}" for w in weights) or "none", "Give a weight for each person.")
    shares = [weight / sum(weights) for weight in weights]

    def mean(parts: Sequence[Tensor | None]) -> Tensor | None:
        if any(part is None for part in parts):
            return None
        return sum(share * part.float() for share, part in zip(shares, parts))

    first = identities[0]
    face = mean([identity.id_embeds for identity in identities])
    return dataclasses.replace(
        first,
        name=name,
        tokens={key: mean([identity.tokens[key] for identity in identities]) for key in first.tokens},
        anchor=mean([identity.anchor for identity in identities]),
        grounding=mean([identity.grounding for identity in identities]),
        adapter={key: mean([identity.adapter[key] for identity in identities]) for key in first.adapter},
        id_embeds=None if face is None else normalize(face, dim=0),
        kv=_mix_kv([identity.kv for identity in identities], shares),
        thumbnail="",
        training={"blend": {identity.name: round(share, 4) for identity, share in zip(identities, shares)}},
    ).to(torch.float16)


def shrink_kv(identity: Identity, rank: int) -> tuple[Identity, float]:
    """The same person with K/V deltas of at most a rank, and the share of them that is lost (Frobenius norm, 0…1).

    Each layer keeps its largest singular values (Eckart–Young): no change of that rank is nearer.
    """
    if rank < 1:
        raise ConfigError("a rank of at least 1", str(rank), "Change the rank.")
    kv, lost, total = {}, 0.0, 0.0
    for name in layers_of(identity.kv):
        delta = delta_of(identity.kv, name)
        left, singular, right = torch.linalg.svd(delta, full_matrices=False)
        kept = min(rank, identity.kv[name + UP].shape[1]) if name + UP in identity.kv else rank
        root = singular[:kept].sqrt()
        kv[name + UP], kv[name + DOWN] = left[:, :kept] * root, root[:, None] * right[:kept]
        lost += singular[kept:].square().sum().item()
        total += singular.square().sum().item()
    return dataclasses.replace(identity, kv=kv).to(torch.float16), (lost / total) ** 0.5 if total else 0.0


def edit(
    identity: Identity,
    name: str | None = None,
    keep_face: bool = True,
    keep_training: bool = True,
    keep_thumbnail: bool = True,
    dtype: torch.dtype | None = None,
) -> Identity:
    """The same person under another name, without the face embedding, the record of the training or the thumbnail, or
    in another precision; None leaves as it is."""
    edited = dataclasses.replace(
        identity,
        name=name or identity.name,
        id_embeds=identity.id_embeds if keep_face else None,
        training=identity.training if keep_training else {},
        thumbnail=identity.thumbnail if keep_thumbnail else "",
    )
    return edited.to(dtype)


def _mix_kv(parts: Sequence[Mapping[str, Tensor]], shares: Sequence[float]) -> dict[str, Tensor]:
    """``Σ share · ΔW`` of each layer: low ranks side by side, or one full matrix where somebody has one."""
    mixed: dict[str, Tensor] = {}
    for name in dict.fromkeys(layer for part in parts for layer in layers_of(part)):
        there = [(part, share) for part, share in zip(parts, shares) if name + UP in part or name + FULL in part]
        if any(name + FULL in part for part, _ in there):
            mixed[name + FULL] = sum(share * delta_of(part, name) for part, share in there)
        else:
            mixed[name + UP] = torch.cat([share * part[name + UP].float() for part, share in there], dim=1)
            mixed[name + DOWN] = torch.cat([part[name + DOWN].float() for part, _ in there])
    return mixed


def _require_alike(identities: Sequence[Identity]) -> None:
    if not identities:
        raise ConfigError("at least one person", "none", "Give people to mix.")
    for field in _shared(identities[0]):
        values = [_shared(identity)[field] for identity in identities]
        if any(value != values[0] for value in values):
            got = ", ".join(f"{identity.trigger} {value}" for identity, value in zip(identities, values))
            raise ConfigError(f"people of one {field}", got, "Mix people who were trained alike on one base model.")


def _shared(identity: Identity) -> dict[str, object]:
    """What people who are mixed have to have in common."""
    ref = {key: getattr(identity.base_ref, key) for key in ("base_model", "prediction", "text_layer", "heads", "beta")}
    return {**ref, "num_tokens": identity.num_tokens, "has_adapter": identity.has_adapter}
