"""An Enhancer's training across people, from images to a file; both front ends call it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..diffusion.backbone import Backbone
from ..errors import TrainingError
from ..faces import FaceEngine
from ..faces.torch_recogniser import TorchRecogniser
from ..files.digest import digest_of
from ..identity.base_ref import load_if_same
from ..method.anchor import cross_initialise
from ..training.likeness_loss import LikenessLoss
from ..training.output import Output
from ..training.run import OnProgress, TrainingRun
from ..training.stopping import Look, Watch
from ..version import __version__
from .config import EnhancerTrainConfig
from .dataset import PeopleDataset
from .pretrained import PretrainedEnhancer
from .trainer import EnhancerTrainer
from .validation import Validator

logger = logging.getLogger(__name__)

NUM_TOKENS = 2  # pseudo-tokens of a person
VALIDATED = 8  # people, at each look


@dataclass(frozen=True, eq=False)
class EnhancerSpec:
    """What an Enhancer is trained on, and how.

    Attributes:
        validate_every: steps between two measurements on the people held out; 0: none. Where their likeness falls the
            training ends, and goes back to where it was best.
        start: an Enhancer to go on from.
    """

    dataset: PeopleDataset
    config: EnhancerTrainConfig = EnhancerTrainConfig()
    validate_every: int = 0
    start: PretrainedEnhancer | None = None

    @property
    def resolved(self) -> EnhancerTrainConfig:
        """The settings, as the start needs them."""
        if self.start is None:
            return self.config
        return self.config.going_on(self.start.base_ref.heads, self.start.base_ref.beta)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that the result depends on and that is known before the images are."""
        people = self.dataset.config
        chosen = people.names, people.num_synthetic, people.min_similarity, people.val_fraction, self.validate_every
        settings = sorted(self.resolved.as_dict().items())
        start = self.start.digest() if self.start else ""
        return digest_of(self.dataset.fingerprint, start, str(settings), str(chosen), __version__)


def require_trainable(
    backbone: Backbone,
    engine: FaceEngine,
    config: EnhancerTrainConfig,
    start: PretrainedEnhancer | None,
    base_checkpoint: str = "",
    base_hash: str = "",
) -> None:
    """Find out what would stop a training before hours are spent on its pictures.

    Args:
        start: an Enhancer to go on from.
        base_checkpoint, base_hash: file name and SHA-256 of the base checkpoint; "" if unknown.

    Raises:
        ConfigError: a start for another family.
        FaceError: face models without a detector.
        MissingPackageError, FaceError: as `TorchRecogniser`, where the training asks for likeness.
    """
    engine.require_detector()
    if start:
        start.require_family(backbone)
        start.warn_of_other_base("the ID-Enhancer to start from", base_hash, base_checkpoint)
    if config.likeness_steps:
        TorchRecogniser(engine.recogniser_file)


def train_enhancer(
    backbone: Backbone,
    spec: EnhancerSpec,
    engine: FaceEngine,
    output: Output,
    on_progress: OnProgress | None = None,
) -> PretrainedEnhancer:
    """Train on the images that are there, from where a training of the same inputs broke off, and save.

    Args:
        output: its fingerprint is completed by the people whose images are of use. A file that is there already is the
            result if it is of exactly these inputs.

    Raises:
        TrainingError: too few people, or a loss that is not finite.
        ConfigError, MissingPackageError, FaceError: as `require_trainable`.
    """
    config, pictures = spec.resolved, spec.dataset.pictures()
    validator = _validator(spec.dataset, backbone, engine) if spec.validate_every else None
    fingerprint = digest_of(spec.fingerprint, *pictures.names, "held out:", *(validator.names if validator else []))
    known = load_if_same(PretrainedEnhancer.load, output.path, fingerprint)
    if known:
        return known
    likeness = LikenessLoss.of(backbone, engine, config) if config.likeness_steps else None
    anchor = None if spec.start else cross_initialise(backbone, pictures.names, NUM_TOKENS)
    trainer = EnhancerTrainer(backbone, anchor, pictures, config, likeness, spec.start)
    watch = Watch(spec.validate_every, lambda: _validate(validator, trainer)) if validator else None
    with TrainingRun(trainer, output.state_file, fingerprint, output.save_every, watch) as run:
        if output.resume:
            run.resume()
        run.run(on_progress)
        record: dict[str, Any] = {
            **config.as_dict(),
            "start": spec.start.digest() if spec.start else "",
            "people": len(pictures.names),
            "num_images": len(pictures.prompts),
            "fingerprint": fingerprint,
            "version": __version__,
            "report": run.report(),
        }
        enhancer = PretrainedEnhancer.of(trainer.model, backbone, **output.base(), training=record)
        output.write(enhancer, "the ID-Enhancer")
    return enhancer


def _validate(validator: Validator, trainer: EnhancerTrainer) -> Look:
    """Likeness of people held out, from their faces alone."""
    rows = list(validator.measure(trainer.model))
    return Look(score=float(np.mean([row["mean_similarity"] for row in rows])))


def _validator(folder: PeopleDataset, backbone: Backbone, engine: FaceEngine) -> Validator | None:
    """What looks at people held out; None where there is nobody."""
    try:
        return Validator(folder, backbone, engine, most=VALIDATED)
    except TrainingError as error:
        logger.warning("ID-EA: nobody to validate with. %s", error)
        return None
