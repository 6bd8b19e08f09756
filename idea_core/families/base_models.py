"""The base models that ID-EA knows: their text encoders and the width of their text condition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class BaseModel:
    """A family of base models that share text encoders and cross-attention width.

    Attributes:
        key: short name, written into identity files.
        title: name for people.
        encoders: text encoder → width of its token embeddings, in the order in which their
            hidden states stand side by side in the text condition.
        clip_layer: layer of the text encoders that the UNet was trained on, counted from the end.
        kv_rank: rank of a person's change to keys and values, unless another is asked for: fewer, the more layers there
            are, so that a file stays small.
    """

    key: str
    title: str
    encoders: Mapping[str, int]
    clip_layer: int
    kv_rank: int = 8

    @property
    def width(self) -> int:
        """`d`: width of the text condition that the UNet's cross attention reads."""
        return sum(self.encoders.values())

    def text_layer(self, clip_layer: int | None) -> int:
        """The text encoder layer that `clip_layer` acts as, counted from the end; None is the family's own."""
        return self.clip_layer if clip_layer is None else clip_layer


def _register(*models: BaseModel) -> Mapping[str, BaseModel]:
    return MappingProxyType({model.key: model for model in models})


BASE_MODELS = _register(
    BaseModel("sd1", "Stable Diffusion 1.x", MappingProxyType({"clip_l": 768}), clip_layer=-1),
    BaseModel("sd2", "Stable Diffusion 2.x", MappingProxyType({"clip_h": 1024}), clip_layer=-2),
    BaseModel(
        "sdxl", "Stable Diffusion XL", MappingProxyType({"clip_l": 768, "clip_g": 1280}), clip_layer=-2, kv_rank=2
    ),
    BaseModel("mini", "the miniature world", MappingProxyType({"clip_mini": 128}), clip_layer=-1),
)
