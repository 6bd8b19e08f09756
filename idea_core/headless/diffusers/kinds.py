"""Backbone and people of a pipeline, of whichever family it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...families import BASE_MODELS
from ...identity.identity import Identity
from .applied import People
from .backbone import DiffusersBackbone
from .flow.applied import FlowPeople
from .flow.backbone import FlowBackbone
from .text import family_of

AnyBackbone = DiffusersBackbone | FlowBackbone
AnyPeople = People | FlowPeople


def backbone_of(
    pipeline: Any, clip_layer: int | None = None, gradient_checkpointing: bool = False
) -> DiffusersBackbone | FlowBackbone:
    """The backbone of a pipeline; arguments and errors as of these classes."""
    kind = FlowBackbone if _flows(pipeline) else DiffusersBackbone
    return kind(pipeline, clip_layer, gradient_checkpointing)


def people_of(
    pipeline: Any, identities: Sequence[Identity], strength: float = 1.0, kv_strength: float = 1.0
) -> People | FlowPeople:
    """Identities applied to a pipeline; arguments and errors as of these classes."""
    kind = FlowPeople if _flows(pipeline) else People
    return kind(pipeline, identities, strength, kv_strength)


def _flows(pipeline: Any) -> bool:
    return BASE_MODELS[family_of(pipeline)].transformer is not None
