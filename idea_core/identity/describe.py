"""A summary of a person's file, for people to read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .identity import Identity

_SHOWN = ("steps", "batch_size", "seed", "photos", "sizes", "kv_rank", "version")


def describe(identity: Identity) -> dict[str, Any]:
    """JSON values; the losses of the training's steps are left out."""
    parts = {"tokens": True, "rows": identity.has_rows, "adapter": identity.has_adapter, "kv": bool(identity.kv)}
    parts |= {"id_embeds": identity.id_embeds is not None, "thumbnail": bool(identity.thumbnail)}
    return {
        "name": identity.name,
        "base_model": identity.base_model,
        "prediction": identity.prediction,
        "clip_layer": identity.base_ref.clip_layer,
        "tokens": identity.num_tokens,
        "token_norms": {key: round(float(t.float().norm(dim=1).mean()), 3) for key, t in identity.tokens.items()},
        "parts": [part for part, there in parts.items() if there],
        "dtype": str(next(iter(identity.tokens.values())).dtype).removeprefix("torch."),
        "base_checkpoint": identity.base_checkpoint,
        "training": {key: value for key, value in identity.training.items() if key != "losses"},
        "digest": identity.digest(),
    }


def last_likeness(training: Mapping[str, Any]) -> float | None:
    """The last face similarity in a training's record; None if it has none, or another kind of value."""
    try:
        return float(training["report"]["likeness"][-1][1])
    except (KeyError, IndexError, TypeError, ValueError):
        return None


def in_lines(values: dict[str, Any]) -> str:
    """A description as text, one entry a line; of the training, only the settings in `_SHOWN`."""
    shown = dict(values)
    if "training" in shown:
        training = shown["training"] or {}
        shown["training"] = ", ".join(f"{key} {training[key]}" for key in _SHOWN if key in training)
    width = max(map(len, shown))
    return "\n".join(f"{key:<{width}}  {_short(value)}" for key, value in shown.items())


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {entry}" for key, entry in value.items()) or "–"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "–"
    return "–" if value in (None, "") else str(value)
