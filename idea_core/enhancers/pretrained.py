"""An Enhancer that has seen people: from a face embedding to an identity, with no training on the person.

The published Enhancer is trained on one person, whose face embedding never changes, so nothing that it learns can
depend on the face. This one is trained across many people (`across.py`), together with a predictor of the pseudo-tokens
and the Adapter, for one base model; then a new person is one forward pass, and a training that starts there starts near
its goal.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..diffusion.backbone import Backbone
from ..errors import ConfigError, IdentityFileError
from ..families import BASE_MODELS, BaseModel
from ..files.tensorfile import read_tensors, require_format, tensor_bytes, write_tensors
from ..files.textfile import parse_json
from ..identity.checks import require_finite, require_settings
from ..identity.identity import Identity
from ..training.config import TrainConfig
from ..training.person import PersonModel, Prediction, build_person
from .model import UNIT_VARIANCE, EnhancerModel

FORMAT, FORMAT_VERSION = "id-ea-enhancer", "2"
AXIS_SCALE = 0.1  # of the names' spread along each axis: an answer is nearer to the person than the mean name
_REMEDY = "Choose a file that an ID-Enhancer was saved to, train one of an older format again, or update ID-EA."


@dataclass(frozen=True, eq=False, repr=False)
class PretrainedEnhancer:
    """A trained `EnhancerModel`, and the base model that it was trained for.

    Attributes:
        base_model: key in `BASE_MODELS`.
        prediction: what the base checkpoint predicts, "eps" or "v".
        clip_layer: text encoder layer of the training; None: the model's own.
        heads, beta: of Enhancer and Adapter.
        weights: state dict of `EnhancerModel`.
        base_checkpoint, base_hash: file name and SHA-256 of the base checkpoint; "" if unknown.
        training: settings and results of the training, JSON values.

    Raises:
        IdentityFileError: a part is missing, foreign, misshapen or not finite.
    """

    base_model: str
    prediction: str
    clip_layer: int | None
    heads: int
    beta: float
    weights: Mapping[str, Tensor]
    base_checkpoint: str = ""
    base_hash: str = ""
    training: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        require_settings(self, _file_error)
        require_finite(self.weights)
        with torch.device("meta"):
            wanted = self._empty().state_dict()
        for key in wanted.keys() | self.weights.keys():
            shapes = [tuple(state[key].shape) if key in state else None for state in (wanted, self.weights)]
            if shapes[0] != shapes[1]:
                raise _file_error(f"{key} of shape {shapes[0] or 'none'}", str(shapes[1] or "none"))

    def __repr__(self) -> str:  # without tensors: it stands in the error reports that users send to others
        return f"PretrainedEnhancer(base_model={self.base_model!r})"

    @classmethod
    def of(cls, model: EnhancerModel, backbone: Backbone, **provenance) -> PretrainedEnhancer:
        """What a training has made, in half precision; `provenance` as above."""
        return cls(
            base_model=backbone.base_model,
            prediction=backbone.schedule.prediction,
            clip_layer=backbone.clip_layer,
            heads=model.adapter.attention.num_heads,
            beta=model.adapter.beta,
            weights={key: tensor.detach().cpu().half() for key, tensor in model.state_dict().items()},
            **provenance,
        )

    @property
    def num_tokens(self) -> int:
        return self.weights["anchor"].shape[0]

    def build(self, device: torch.device | str = "cpu") -> EnhancerModel:
        """The model in single precision, frozen; its weights are copies."""
        with torch.device("meta"):  # random weights that nobody needs would take longer than a person
            model = self._empty()
        weights = {key: tensor.to(torch.float32, copy=True) for key, tensor in self.weights.items()}
        model.load_state_dict(weights, assign=True)
        return model.requires_grad_(False).eval().to(device)

    def require_family(self, backbone: Backbone) -> None:
        """Raise `ConfigError` if a backbone is of another family."""
        if backbone.base_model != self.base_model:
            titles = [BASE_MODELS[key].title for key in (self.base_model, backbone.base_model)]
            raise ConfigError(f"an ID-Enhancer for {titles[1]}", f"one for {titles[0]}", "Choose another.")

    @property
    def base(self) -> BaseModel:
        return BASE_MODELS[self.base_model]

    @property
    def text_layer(self) -> int:
        """The text encoder layer of the training, counted from the end."""
        return self.base.text_layer(self.clip_layer)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the weights."""
        digest = hashlib.sha256()
        for key in sorted(self.weights):
            digest.update(tensor_bytes(self.weights[key]))
        return digest.hexdigest()

    @classmethod
    def mean_of(cls, enhancers: Sequence[PretrainedEnhancer]) -> PretrainedEnhancer:
        """Mean weights of trainings that went on from one start with different seeds, which is often better than each
        of them (arXiv 2203.05482).

        Raises:
            ConfigError: fewer than two, the same twice, or trainings that did not start at one Enhancer.
        """
        starts, different = {each.training.get("start", "") for each in enhancers}, {each.digest for each in enhancers}
        if len(different) < max(2, len(enhancers)) or len(starts) > 1 or not all(starts):
            raise ConfigError(
                "two different trainings or more that went on from one ID-Enhancer",
                f"{len(different)} of {len(starts)} starts" if all(starts) else "one that was trained without a start",
                "Train them by --start FILE with different seeds; means of others are of no use.",
            )
        weights = {
            key: torch.stack([each.weights[key].float() for each in enhancers]).mean(0).half()
            for key in enhancers[0].weights
        }
        seeds = [each.training.get("seed") for each in enhancers]
        mean = dataclasses.replace(enhancers[0], weights=weights)
        training = {**enhancers[0].training, "seed": seeds, "fingerprint": mean.digest, "report": {}}
        return dataclasses.replace(mean, training=training)

    @torch.no_grad()
    def identity(self, name: str, id_embeds: Tensor, shown: Tensor | None = None) -> Identity:
        """A person from a face alone.

        Args:
            id_embeds: `a` (512,), L2-normalised.
            shown: the face that gives the person, where it is another one (`Refiner`).
        """
        model = self.build()
        face = (id_embeds if shown is None else shown)[None].float()
        fused = model.fused(face)[0]
        return Identity(
            name=name,
            base_model=self.base_model,
            prediction=self.prediction,
            clip_layer=self.clip_layer,
            heads=self.heads,
            beta=self.beta,
            tokens={encoder: tokens[0] for encoder, tokens in model.tokens(face).items()},
            anchor=model.anchor,
            grounding=model.adapter.grounding(fused),
            id_embeds=id_embeds,
            adapter=model.adapter.applied_weights(),
            base_checkpoint=self.base_checkpoint,
            base_hash=self.base_hash,
            training={"steps": 0, "enhancer": self.training.get("fingerprint", "")},
        ).to(torch.float16)

    def warn_of_other_base(self, file: str, base_hash: str, base_checkpoint: str) -> None:
        """Say that the base model in use is not the one that this was trained for, where both are known."""
        if self.base_hash and base_hash and self.base_hash != base_hash:
            logging.warning(
                "ID-EA: %s was trained for %s, not for %s. A fine-tune of the same base model may do; others do not.",
                file,
                self.base_checkpoint,
                base_checkpoint,
            )

    def configure(self, config: TrainConfig) -> TrainConfig:
        """The settings of a training that starts here: this Enhancer's own num_tokens, heads and beta."""
        return dataclasses.replace(config, num_tokens=self.num_tokens, heads=self.heads, beta=self.beta)

    def build_person(
        self, backbone: Backbone, id_embeds: Tensor, config: TrainConfig, names: Iterable[str]
    ) -> PersonModel:
        """What a `Trainer` trains for a person who starts here, in place of the names' mean and the anchor.

        Raises:
            ConfigError: settings that are not `configure`d, or a backbone of another family.
        """
        self.require_family(backbone)
        if config != self.configure(config):
            got = f"num_tokens {config.num_tokens}, heads {config.heads}, beta {config.beta}"
            wanted = f"num_tokens {self.num_tokens}, heads {self.heads}, beta {self.beta}"
            raise ConfigError(wanted, got, "Take the ID-Enhancer's own.")
        model = self.build(backbone.device)
        with torch.no_grad():
            tokens = {encoder: part[0] for encoder, part in model.tokens(id_embeds[None].to(model.anchor)).items()}
            model.enhancer.expand.weight.mul_(UNIT_VARIANCE)  # training gives it the face as it is
        modules = model.enhancer.requires_grad_(), model.adapter.requires_grad_()
        prediction = Prediction(tokens, model.anchor, modules, AXIS_SCALE)
        return build_person(backbone, id_embeds, config, names, prediction)

    def metadata(self) -> dict[str, str]:
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "base_model": self.base_model,
            "prediction": self.prediction,
            "clip_layer": "" if self.clip_layer is None else str(self.clip_layer),
            "heads": str(self.heads),
            "beta": repr(self.beta),
            "base_checkpoint": self.base_checkpoint,
            "base_hash": self.base_hash,
            "training": json.dumps(self.training, sort_keys=True),
        }

    def save(self, path: str | os.PathLike) -> Path:
        """Write the file; an existing one is replaced in one move.

        Raises OSError, with any existing file left whole.
        """
        return write_tensors(path, {key: tensor.contiguous() for key, tensor in self.weights.items()}, self.metadata())

    @classmethod
    def load(cls, path: str | os.PathLike) -> PretrainedEnhancer:
        """Read and check a file.

        Raises:
            IdentityFileError: not an ID-Enhancer, of another format version, or damaged.
            FileNotFoundError: no such file.
        """
        try:
            weights, said = read_tensors(path, _require_format)
            return cls(
                base_model=said["base_model"],
                prediction=said["prediction"],
                clip_layer=int(said["clip_layer"]) if said["clip_layer"] else None,
                heads=int(said["heads"]),
                beta=float(said["beta"]),
                weights=weights,
                base_checkpoint=said["base_checkpoint"],
                base_hash=said["base_hash"],
                training=parse_json(said["training"]),
            )
        except KeyError as error:
            raise _file_error(f"an entry {error}", f"none in {Path(path).name}") from None
        except ValueError as error:
            raise _file_error("metadata values of the right kind", f"{error} in {Path(path).name}") from None
        except IdentityFileError as error:
            raise IdentityFileError(error.expected, f"{error.got} in {Path(path).name}", error.remedy) from None

    def _empty(self) -> EnhancerModel:
        anchor = self.weights.get("anchor")
        encoders = BASE_MODELS[self.base_model].encoders
        if anchor is None or anchor.ndim != 2 or anchor.shape[1] != sum(encoders.values()):
            got = "none" if anchor is None else str(tuple(anchor.shape))
            raise _file_error(f"an anchor of shape (n, {sum(encoders.values())})", got)
        parts = torch.zeros_like(anchor, device="cpu").split(list(encoders.values()), dim=-1)
        anchor = dict(zip(encoders, parts))
        return EnhancerModel(anchor, anchor, anchor, self.heads, self.beta)


def _file_error(expected: str, got: str) -> IdentityFileError:
    return IdentityFileError(expected, got, _REMEDY)


def _require_format(metadata: Mapping[str, str]) -> None:
    require_format(metadata, (FORMAT, FORMAT_VERSION), remedy=_REMEDY)
