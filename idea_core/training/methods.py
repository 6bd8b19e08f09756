"""Ways to learn a person on one trainer: ID-EA and the methods it is compared with (arXiv 2507.11990, section 4)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from ..diffusion.backbone import Backbone
from ..errors import ConfigError
from ..families import BASE_MODELS
from ..files.textfile import parse_json
from ..identity.identity import Identity
from ..settings import settings_of
from .config import PRESETS, TrainConfig
from .person import PersonModel
from .start import NamesStart, Start, build_person

LONG = 320  # steps of the published command, and of the methods before it


@dataclass(frozen=True, eq=False)
class Method:
    """One way to learn a person.

    Attributes:
        title: for tables.
        settings: where it differs from the default `TrainConfig`.
        start: where the person starts.
        left_out: parts of the person that are not used for drawing: "adapter".
        enhancer: whether the person starts at the prediction of a pretrained ID-Enhancer.
        refined: whether that prediction is drawn, compared with the face and corrected; without training alone.
        captions: one of `CAPTIONS`.
    """

    title: str
    settings: Mapping[str, Any]
    start: Start = NamesStart()
    left_out: tuple[str, ...] = ()
    enhancer: bool = False
    refined: bool = False
    captions: str = "photo"

    def config(self, **changes: Any) -> TrainConfig:
        """The settings of a training, with changes to the method's own."""
        return replace(TrainConfig(), **{**self.settings, **changes})

    def changed(self, title: str, **settings: Any) -> Method:
        """The same method with other settings."""
        return replace(self, title=title, settings={**self.settings, **settings})

    def drawn(self, identity: Identity) -> Identity:
        """The person as the method draws it, without what is left out."""
        return replace(identity, grounding=None, adapter={}) if "adapter" in self.left_out else identity


@dataclass(frozen=True)
class WordStart(NamesStart):
    """Textual Inversion (arXiv 2208.01618): the tokens start as the input embeddings of a word.

    Pseudo-tokens in a text encoder's output start at the names' mean row there.
    """

    word: str = "person"

    def build_person(
        self, backbone: Backbone, id_embeds: Tensor, config: TrainConfig, names: Sequence[str]
    ) -> PersonModel:
        ids = backbone.tokenize(self.word)
        if not BASE_MODELS[backbone.base_model].crosses:
            start = {key: backbone.embed_tokens(key, own[:1] * config.num_tokens) for key, own in ids.items()}
            free = None if config.space == "output" else start
            return build_person(backbone, id_embeds, config, names, free=free)
        person = super().build_person(backbone, id_embeds, config, names)
        with torch.no_grad():
            for encoder, tokens in person.tokens.items():
                tokens.copy_(backbone.embed_tokens(encoder, ids[encoder][:1]).expand_as(tokens))
        return person


_BARE = {"start": "cross", "adapter_lr": 0.0, "enhancer_lr": None, "kv_lr": 0.0, "regularizer_weight": 0.0}
_PAPER = PRESETS["paper"].as_dict()
_INPUT = {"space": "input"}  # as both methods are published
TEXTUAL_INVERSION = Method("Textual Inversion", {**_BARE, **_INPUT, "token_lr": 1e-2}, WordStart())
CROSS_INITIALIZATION = Method(
    "Cross Initialization", {**_BARE, **_INPUT, "token_lr": 1e-2, "regularizer": "l2", "regularizer_weight": 1e-5}
)
CELEB_BASIS = Method("Celeb Basis", {**_BARE, "start": "names", "axes": 64})
PUBLISHED = Method(
    "ID-EA as published",
    {key: value for key, value in _PAPER.items() if value != getattr(TrainConfig(), key)},
    left_out=("adapter",),  # as the published images are made
    captions="paper",
)
ID_EA = Method("ID-EA", {})

METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "ti": TEXTUAL_INVERSION.changed(TEXTUAL_INVERSION.title, steps=LONG),
        "ci": CROSS_INITIALIZATION.changed(CROSS_INITIALIZATION.title, steps=LONG),
        "celeb": CELEB_BASIS.changed(CELEB_BASIS.title, steps=LONG),
        "published": PUBLISHED,
        "id-ea": ID_EA,
        "instant": Method("ID-EA, pretrained ID-Enhancer, no training", {"steps": 0}, enhancer=True),
        "refined": Method("ID-EA, pretrained ID-Enhancer, refined", {"steps": 0}, enhancer=True, refined=True),
        "enhancer": Method("ID-EA, pretrained ID-Enhancer", {}, enhancer=True),
    }
)
"""The methods of a comparison, by the names that the command knows."""


def parse_methods(text: str) -> dict[str, Method]:
    """Methods by name, each line a JSON object: "method" (one of `METHODS`), "name", "title", and any setting.

    >>> parse_methods('{"method": "ti", "name": "ti-80", "steps": 80}')

    Raises:
        ConfigError: a line that is no such object, an unknown method or setting, or a name that stands twice.
    """
    found: dict[str, Method] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        name, method = _parse_line(number, line)
        if name in found:
            raise ConfigError("methods of different names", f"two of {name}", f'Give line {number} another "name".')
        found[name] = method
    return found


def _parse_line(number: int, line: str) -> tuple[str, Method]:
    try:
        entry = parse_json(line)
    except ValueError as error:
        entry = str(error)
    settings, own = settings_of(TrainConfig), {"method", "name", "title"}
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key, ""), str) for key in own):
        got = f"{line[:80]!r} in line {number}"
        raise ConfigError("a JSON object of a method", got, 'Write {"method": "ti", "name": "ti-80", "steps": 80}.')
    base, unknown = METHODS.get(entry.get("method", "")), entry.keys() - own - settings.keys()
    if base is None or unknown:
        got = f"{entry.get('method')!r}" if base is None else ", ".join(sorted(unknown))
        remedy = f"Methods: {', '.join(METHODS)}. Settings: those of docs/training.md."
        raise ConfigError(f"a known method and its settings in line {number}", got, remedy)
    name = str(entry.get("name", entry["method"]))
    changes = {key: value for key, value in entry.items() if key not in own}
    title = entry.get("title") or (f"{base.title} ({json.dumps(changes)[1:-1]})" if changes else base.title)
    method = base.changed(title, **changes)
    method.config()  # checks the values
    return name, method


def steps_of(method: Method, steps: int | None) -> Method:
    """The method with so many steps; one that is not trained at all stays so. None: its own."""
    if steps is None or method.config().steps == 0:
        return method
    return method.changed(method.title, steps=steps)
