"""A pretrained Enhancer: from a face embedding to an identity, with no training on the person.

The published Enhancer is trained on one person, whose face embedding never changes: nothing it learns can depend on
the face. This one is trained on many people (`trainer.py`) for one base model, with the Adapter and a predictor of the
pseudo-tokens. A new person then takes one forward pass, and a training that starts there needs few steps.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..diffusion.backbone import Backbone
from ..errors import ConfigError
from ..families import BASE_MODELS
from ..files.format import FileFormat, renamed, sized
from ..files.tensorfile import write_tensors
from ..identity.base_ref import BaseModelRef, MadeForBase
from ..identity.checks import file_error, require_finite, require_shapes
from ..identity.identity import Identity
from ..method.anchor import ROWS
from ..training.config import TrainConfig
from ..training.person import PersonModel
from ..training.start import Prediction, build_person
from .model import UNIT_VARIANCE, EnhancerModel

logger = logging.getLogger(__name__)

_REMEDY = "Choose a file that an ID-Enhancer was saved to, or train it again."
FORMAT = FileFormat("id-ea-enhancer", "4", _REMEDY, {"2": (renamed, sized), "3": (sized,)})


@dataclass(frozen=True, eq=False, repr=False)
class PretrainedEnhancer(MadeForBase):
    """A trained `EnhancerModel`, and the base model that it was trained for.

    Attributes:
        base_ref: the base model of the training, and the shape of Enhancer and Adapter.
        weights: state dict of `EnhancerModel`.
        training: settings and results of the training, JSON values.

    Raises:
        IdentityFileError: a part is missing, foreign, misshapen or not finite.
    """

    base_ref: BaseModelRef
    weights: Mapping[str, Tensor]
    training: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        require_finite(self.weights)
        with torch.device("meta"):
            expected = self._empty().state_dict()
        require_shapes(self.weights, {key: tuple(tensor.shape) for key, tensor in expected.items()})

    def __repr__(self) -> str:  # users send error reports to others: no tensors
        return f"PretrainedEnhancer(base_model={self.base_model!r})"

    @classmethod
    def of(
        cls, model: EnhancerModel, backbone: Backbone, training: Mapping[str, Any] | None = None, **checkpoint: str
    ) -> PretrainedEnhancer:
        """The result of a training, in half precision; `checkpoint` as in `BaseModelRef.of`."""
        return cls(
            base_ref=BaseModelRef.of(backbone, model.adapter.attention.num_heads, model.adapter.beta, **checkpoint),
            weights={key: tensor.detach().cpu().half() for key, tensor in model.state_dict().items()},
            training=training or {},
        )

    def tensors(self) -> dict[str, Tensor]:
        return dict(self.weights)

    @property
    def num_tokens(self) -> int:
        return self.weights["anchor"].shape[0]

    def build(self, device: torch.device | str = "cpu") -> EnhancerModel:
        """The model in single precision, frozen; its weights are copies."""
        with torch.device("meta"):  # random weights, which are not needed, would take longer than a person
            model = self._empty()
        weights = {key: tensor.to(torch.float32, copy=True) for key, tensor in self.weights.items()}
        model.load_state_dict(weights, assign=True)
        return model.requires_grad_(False).eval().to(device)

    def require_family(self, backbone: Backbone) -> None:
        """Raise `ConfigError` if a backbone is of another family."""
        if backbone.base_model != self.base_model:
            titles = [BASE_MODELS[key].title for key in (self.base_model, backbone.base_model)]
            raise ConfigError(f"an ID-Enhancer for {titles[1]}", f"one for {titles[0]}", "Choose another.")

    @classmethod
    def mean_of(cls, enhancers: Sequence[PretrainedEnhancer]) -> PretrainedEnhancer:
        """Mean weights of trainings from one start with different seeds, often better than each (arXiv 2203.05482).

        Raises:
            ConfigError: fewer than two, the same twice, or trainings that did not start from one Enhancer.
        """
        starts = {each.training.get("start", "") for each in enhancers}
        different = {each.digest() for each in enhancers}
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
        training = {**enhancers[0].training, "seed": seeds, "fingerprint": mean.digest(), "report": {}}
        return dataclasses.replace(mean, training=training)

    @torch.no_grad()
    def identity(self, name: str, id_embeds: Tensor, shown: Tensor | None = None) -> Identity:
        """A person from a face alone.

        Args:
            id_embeds: `a` (512,), L2-normalised.
            shown: the model's input, if it is another face (`Refiner`).
        """
        model = self.build()
        face = (id_embeds if shown is None else shown)[None].float()
        fused = model.fused(face)[0]
        tokens = {encoder: part[0] for encoder, part in model.tokens(face).items()}
        rows = tokens.pop(ROWS, None)
        return Identity(
            name=name,
            base_ref=self.base_ref,
            tokens=tokens if model.read is None else model.read,
            rows=rows,
            anchor=model.anchor,
            grounding=model.adapter.grounding(fused),
            id_embeds=id_embeds,
            adapter=model.adapter.applied_weights(),
            training={"steps": 0, "enhancer": self.training.get("fingerprint", "")},
        ).to(torch.float16)

    def warn_of_other_base(self, file: str, base_hash: str, base_checkpoint: str) -> None:
        """Warn if the base model is not the one of this Enhancer's training, where both are known."""
        if self.base_ref.base_hash and base_hash and self.base_ref.base_hash != base_hash:
            logger.warning(
                "ID-EA: %s was trained for %s, not for %s. A fine-tune of the same base model may do; others do not.",
                file,
                self.base_checkpoint,
                base_checkpoint,
            )

    def configure(self, config: TrainConfig) -> TrainConfig:
        """The settings of a training that starts here: this Enhancer's own num_tokens, heads and beta."""
        ref = self.base_ref
        config = dataclasses.replace(config, num_tokens=self.num_tokens, adapter_width=ref.adapter_width)
        space = config.space if self.base.crosses else "output"
        return dataclasses.replace(config, heads=ref.heads, beta=ref.beta, space=space)

    def build_person(
        self, backbone: Backbone, id_embeds: Tensor, config: TrainConfig, names: Sequence[str]
    ) -> PersonModel:
        """As `Start.build_person`: a person who starts at this Enhancer's prediction.

        Raises:
            ConfigError: settings that are not `configure`d, or a backbone of another family.
        """
        self.require_family(backbone)
        if config != self.configure(config):
            got = f"num_tokens {config.num_tokens}, heads {config.heads}, beta {config.beta}"
            wanted = f"num_tokens {self.num_tokens}, heads {self.base_ref.heads}, beta {self.base_ref.beta}"
            raise ConfigError(wanted, got, "Take the ID-Enhancer's own.")
        model = self.build(backbone.device)
        with torch.no_grad():
            tokens = {encoder: part[0] for encoder, part in model.tokens(id_embeds[None].to(model.anchor)).items()}
            model.enhancer.expand.weight.mul_(UNIT_VARIANCE)  # a person's training does not scale the face
        modules = model.enhancer.requires_grad_(), model.adapter.requires_grad_()
        prediction = Prediction(tokens, model.anchor, modules, model.read)
        return build_person(backbone, id_embeds, config, names, prediction)

    def metadata(self) -> dict[str, str]:
        return FORMAT.metadata(self.header())

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
        with FORMAT.reading(path) as (weights, metadata):
            return cls(weights=weights, **cls.read_header(metadata))

    def _empty(self) -> EnhancerModel:
        anchor, encoders, crosses = self.weights.get("anchor"), self.base.encoders, self.base.crosses
        widths = encoders if crosses else {ROWS: self.base.width}
        if anchor is None or anchor.ndim != 2 or anchor.shape[1] != sum(widths.values()):
            got = "none" if anchor is None else str(tuple(anchor.shape))
            raise file_error(f"an anchor of shape (n, {sum(widths.values())})", got)
        zeros, read = (
            {key: torch.zeros(len(anchor), width, device="cpu") for key, width in some.items()}
            for some in (widths, encoders)
        )
        ref = self.base_ref
        return EnhancerModel(zeros, zeros, zeros, ref.heads, ref.beta, ref.width, None if crosses else read)
