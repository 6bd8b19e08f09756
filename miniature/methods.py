"""Ways to learn a person, side by side on the same trainer: ID-EA and those that it is compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from idea_core.anchor import Anchor
from idea_core.backbone import Backbone
from idea_core.config import PRESETS, TrainConfig
from idea_core.person import RATE_WIDTH, PersonModel

from .models import WIDTH
from .world import all_names, enhancer

BARE = {"adapter_rate": 0.0, "enhancer_rate": None, "kv_rate": 0.0, "regularizer_weight": 0.0}


@dataclass(frozen=True, eq=False)
class Method:
    """One way to learn a person.

    Attributes:
        title: for tables.
        settings: what differs from the default `TrainConfig`.
        build: what is trained.
        left_out: parts of the identity that are left out when pictures are made: "adapter".
    """

    title: str
    settings: Mapping[str, Any]
    build: Callable[[Backbone, Anchor, Tensor, TrainConfig], PersonModel] = PersonModel
    left_out: tuple[str, ...] = ()

    def config(self, **changes) -> TrainConfig:
        return replace(TrainConfig(), **{**self.settings, **changes})


class WordPerson(PersonModel):
    """Textual Inversion (arXiv 2208.01618): the tokens start as the input embeddings of a word."""

    WORD = "person"

    def __init__(self, backbone: Backbone, anchor: Anchor, arcface: Tensor, config: TrainConfig):
        super().__init__(backbone, anchor, arcface, config)
        ids = backbone.tokenize(self.WORD)
        with torch.no_grad():
            for encoder, tokens in self.tokens.items():
                tokens.copy_(backbone.embed_tokens(encoder, ids[encoder][:1]).expand_as(tokens))


class CelebBasisPerson(PersonModel):
    """Celeb Basis (arXiv 2306.00926): coefficients over the principal axes of celebrities' name embeddings.

    The tokens are ``mean + coefficients · axes`` per position, in the space of input embeddings.
    """

    AXES = 64

    def __init__(self, backbone: Backbone, anchor: Anchor, arcface: Tensor, config: TrainConfig):
        super().__init__(backbone, anchor, arcface, config)
        del self.tokens
        names = [backbone.tokenize(name) for name in all_names()]
        self.coefficients = nn.ParameterDict()
        for encoder in anchor:
            ids = torch.tensor([name[encoder][: config.n] for name in names])  # (N, n)
            embeddings = torch.stack([backbone.embed_tokens(encoder, column.tolist()) for column in ids.T])
            mean = embeddings.mean(1, keepdim=True)  # (n, 1, d_enc)
            _, singular, axes = torch.linalg.svd(embeddings - mean, full_matrices=False)
            scale = singular[:, : self.AXES, None] / len(names) ** 0.5  # a coefficient of 1 is a standard deviation
            self.register_buffer(f"mean_{encoder}", mean[:, 0])
            self.register_buffer(f"axes_{encoder}", axes[:, : self.AXES] * scale)  # (n, axes, d_enc)
            self.coefficients[encoder] = nn.Parameter(torch.zeros(config.n, axes[:, : self.AXES].shape[1]))

    @property
    def tokens(self) -> dict[str, Tensor]:
        return {
            encoder: getattr(self, f"mean_{encoder}")
            + torch.einsum("na,nad->nd", coefficients, getattr(self, f"axes_{encoder}"))
            for encoder, coefficients in self.coefficients.items()
        }

    def parameter_groups(self, config: TrainConfig) -> list[dict]:
        tokens, *others = super().parameter_groups(config)
        return [{**tokens, "params": list(self.coefficients.values())}, *others]


TEXTUAL_INVERSION = Method("Textual Inversion", {**BARE, "token_rate": 1e-2}, WordPerson)
CROSS_INITIALIZATION = Method(
    "Cross Initialization", {**BARE, "token_rate": 1e-2, "regularizer": "l2", "regularizer_weight": 1e-5}
)
CELEB_BASIS = Method("Celeb Basis", {**BARE, "token_rate": 1e-1}, CelebBasisPerson)
ID_EA = Method("ID-EA", {})
SEEN = Method("ID-EA, Enhancer that has seen people", {}, lambda *given: enhancer().build_person(*given))
_PAPER = PRESETS["paper"]
PUBLISHED = Method(
    "ID-EA as published",
    {
        **{
            key: getattr(_PAPER, key)
            for key in ("token_rate", "enhancer_rate", "kv_rate", "regularizer_weight", "gate")
        },
        "adapter_rate": _PAPER.adapter_rate * WIDTH / RATE_WIDTH,  # the same rate for all
    },
    left_out=("adapter",),
)
