"""The header that people's files and ID-Enhancers' share: the base model, and a record of the training."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from ..diffusion.backbone import Backbone
from ..diffusion.schedule import DISCRETE, FLOW
from ..errors import IdeaError
from ..families import BASE_MODELS, BaseModel
from ..files.digest import Digest
from ..files.textfile import parse_json
from .checks import file_error


@dataclass(frozen=True)
class BaseModelRef:
    """A base model, and the shape of Enhancer and Adapter on it.

    Attributes:
        base_model: key in `BASE_MODELS`.
        prediction: what the base checkpoint predicts: "eps" or "v", or "flow" for a transformer.
        clip_layer: text encoder layer of the training, counted from the end; None: the model's own.
        heads, beta: of Enhancer and Adapter.
        base_checkpoint: file name of the base checkpoint; "" if unknown.
        base_hash: SHA-256 of that file; "" if unknown.
        adapter_width: width at which Enhancer and Adapter work, if it is not the family's own.

    Raises IdentityFileError for values that are unknown or do not fit the family.
    """

    base_model: str
    prediction: str
    clip_layer: int | None
    heads: int
    beta: float
    base_checkpoint: str = ""
    base_hash: str = ""
    adapter_width: int | None = None

    def __post_init__(self) -> None:
        if self.base_model not in BASE_MODELS:
            raise file_error(f"base_model to be one of {', '.join(BASE_MODELS)}", repr(self.base_model))
        predictions = (FLOW,) if self.base.transformer else DISCRETE
        if self.prediction not in predictions:
            raise file_error(f"prediction to be one of {', '.join(predictions)}", repr(self.prediction))
        if self.width < 1:
            raise file_error("adapter_width to be above 0", str(self.width))
        if self.heads < 1 or self.width % self.heads:
            raise file_error(f"heads to divide the width {self.width}", str(self.heads))
        if not math.isfinite(self.beta):
            raise file_error("beta to be finite", str(self.beta))

    @classmethod
    def of(cls, backbone: Backbone, heads: int, beta: float, **checkpoint: str) -> BaseModelRef:
        """The base model of a backbone; `checkpoint` is `base_checkpoint` and `base_hash`."""
        predicts = backbone.schedule.prediction
        name, digest = checkpoint.get("base_checkpoint", ""), checkpoint.get("base_hash", "")
        return cls(backbone.base_model, predicts, backbone.clip_layer, heads, beta, name, digest)

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> BaseModelRef:
        """The reference in `metadata`; KeyError or ValueError if there is none."""
        values: dict[str, Any] = {field.name: metadata[field.name] for field in fields(cls)}
        for name in ("clip_layer", "adapter_width"):
            values[name] = int(values[name]) if values[name] else None
        return cls(**{**values, "heads": int(values["heads"]), "beta": float(values["beta"])})

    def metadata(self) -> dict[str, str]:
        return {key: "" if value is None else str(value) for key, value in asdict(self).items()}

    @property
    def base(self) -> BaseModel:
        return BASE_MODELS[self.base_model]

    @property
    def width(self) -> int:
        """Width at which Enhancer and Adapter work."""
        return self.base.module_width(self.adapter_width)


class MadeForBase(ABC):
    """Base of a person's file and an ID-Enhancer's: a header, a record of the training, a digest."""

    base_ref: BaseModelRef
    training: Mapping[str, Any]

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """All tensors under their keys in the file."""

    @property
    def base_model(self) -> str:
        return self.base_ref.base_model

    @property
    def prediction(self) -> str:
        return self.base_ref.prediction

    @property
    def base(self) -> BaseModel:
        return self.base_ref.base

    @property
    def base_checkpoint(self) -> str:
        return self.base_ref.base_checkpoint

    @property
    def text_layer(self) -> int:
        """The text encoder layer of the training, counted from the end."""
        return self.base.text_layer(self.base_ref.clip_layer)

    def digest(self) -> str:
        """SHA-256 of all tensors, hexadecimal, whatever the file's name."""
        return Digest().add_tensors(self.tensors()).hex()

    def header(self) -> dict[str, str]:
        """The shared part of the file's metadata."""
        return self.base_ref.metadata() | {"training": json.dumps(self.training, sort_keys=True)}

    @staticmethod
    def read_header(metadata: Mapping[str, str]) -> dict[str, Any]:
        """`base_ref` and `training` of a file's metadata; KeyError or ValueError if they are missing."""
        training = parse_json(metadata["training"])
        if not isinstance(training, dict):
            raise file_error("training to be a JSON object", str(training))
        return {"base_ref": BaseModelRef.from_metadata(metadata), "training": training}


Made = TypeVar("Made", bound=MadeForBase)


def load_if_same(load: Callable[[Path], Made], path: Path, fingerprint: str) -> Made | None:
    """An earlier result of exactly the same inputs; None if there is none, or if it is damaged."""
    try:
        stored = load(path)
    except (IdeaError, OSError):
        return None
    return stored if stored.training.get("fingerprint") == fingerprint else None
