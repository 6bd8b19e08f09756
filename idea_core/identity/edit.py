"""New identities from trained ones: mixed, renamed, made smaller, or with something left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..errors import ConfigError
from ..method.kv import DOWN, FULL, UP, delta_of, layers_of
from .identity import Identity


def blend(identities: Sequence[Identity], weights: Sequence[float], name: str) -> Identity:
    """A person between others of one base model: a weighted mean of all parts.

    K/V deltas are mixed exactly, at the sum of their ranks. Mixed Adapter weights act nearly as the Adapters' mean
    if their trainings had the same settings and seed. The face embedding is the normalised mean.

    Args:
        weights: one per identity, not all 0; their sum counts as 1.

    Raises ConfigError for people who do not fit together, or weights that do not fit them.
    """
    _require_alike(identities)
    if len(weights) != len(identities) or not all(w >= 0 for w in weights) or not sum(weights) > 0:
        expected = f"{len(identities)} weights of at least 0, not all 0"
        raise ConfigError(expected, ", ".join(f"{w:g}" for w in weights) or "none", "Give a weight for each person.")
    shares = [weight / sum(weights) for weight in weights]

    def mean(parts: Iterable[Tensor]) -> Tensor:
        return sum((share * part.float() for share, part in zip(shares, parts)), torch.zeros(()))

    def mean_of(name: str) -> Tensor | None:
        parts = [getattr(identity, name) for identity in identities]
        return None if any(part is None for part in parts) else mean(parts)

    first, face = identities[0], mean_of("id_embeds")
    return dataclasses.replace(
        first,
        name=name,
        tokens={key: mean(identity.tokens[key] for identity in identities) for key in first.tokens},
        rows=mean_of("rows"),
        anchor=mean_of("anchor"),
        grounding=mean_of("grounding"),
        adapter={key: mean(identity.adapter[key] for identity in identities) for key in first.adapter},
        id_embeds=None if face is None else normalize(face, dim=0),
        kv=_mix_kv([identity.kv for identity in identities], shares),
        thumbnail="",
        training={"blend": {identity.name: round(share, 4) for identity, share in zip(identities, shares)}},
    ).to(torch.float16)


def shrink_kv(identity: Identity, rank: int) -> tuple[Identity, float]:
    """The same person with K/V deltas of at most `rank`, and the share of them that is lost (Frobenius norm, 0…1).

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
    """The same person with another name or precision (None keeps it), or without one of the parts."""
    edited = dataclasses.replace(
        identity,
        name=name or identity.name,
        id_embeds=identity.id_embeds if keep_face else None,
        training=identity.training if keep_training else {},
        thumbnail=identity.thumbnail if keep_thumbnail else "",
    )
    return edited.to(dtype)


def _mix_kv(parts: Sequence[Mapping[str, Tensor]], shares: Sequence[float]) -> dict[str, Tensor]:
    """``Σ share · ΔW`` of each layer: low ranks side by side, or one full matrix if any of them is full."""
    mixed: dict[str, Tensor] = {}
    for name in dict.fromkeys(layer for part in parts for layer in layers_of(part)):
        present = [(part, share) for part, share in zip(parts, shares) if name + UP in part or name + FULL in part]
        if any(name + FULL in part for part, _ in present):
            mixed[name + FULL] = sum((share * delta_of(part, name) for part, share in present), torch.zeros(()))
        else:
            mixed[name + UP] = torch.cat([share * part[name + UP].float() for part, share in present], dim=1)
            mixed[name + DOWN] = torch.cat([part[name + DOWN].float() for part, _ in present])
    return mixed


def _require_alike(identities: Sequence[Identity]) -> None:
    if not identities:
        raise ConfigError("at least one person", "none", "Give people to mix.")
    fields = ["base_model", "prediction", "text_layer", "base_ref.heads", "base_ref.beta", "base_ref.width"]
    fields += ["num_tokens", "has_adapter", "has_rows", "kv_scope"]
    for field in fields:
        values = [attrgetter(field)(identity) for identity in identities]
        if any(value != values[0] for value in values):
            got = ", ".join(f"{identity.trigger} {value}" for identity, value in zip(identities, values))
            remedy = "Mix people who were trained alike on one base model."
            raise ConfigError(f"people of one {field.removeprefix('base_ref.')}", got, remedy)
