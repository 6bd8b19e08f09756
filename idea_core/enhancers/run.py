"""A training across people from first to last step: taken up, saved on the way, validated on people held out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..diffusion.backbone import Backbone
from ..errors import TrainingError
from ..faces import FaceEngine
from ..faces.torch_recogniser import TorchRecogniser
from ..files.tensorfile import load_if_same
from ..method.anchor import cross_initialise
from ..training.likeness_loss import LikenessLoss
from ..training.run import TrainingRun
from ..training.watch import Judged
from ..version import __version__
from .config import EnhancerTrainConfig
from .dataset import PeopleDataset, digest_of
from .pretrained import PretrainedEnhancer
from .trainer import EnhancerTrainer
from .validation import Validator

VALIDATED = 8  # people, at each look


@dataclass
class Validation(Judged):
    """Likeness of people held out, from their faces alone, while an Enhancer learns from the others."""

    validator: Validator

    def look(self, step: int) -> None:
        rows = list(self.validator.measure(self.trainer.model))
        self.judge(step, float(np.mean([row["likeness"] for row in rows])))


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
        start, base_checkpoint, base_hash: as `train_enhancer` takes them.

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
    folder: PeopleDataset,
    backbone: Backbone,
    engine: FaceEngine,
    config: EnhancerTrainConfig,
    output: Path,
    save_every: int = 0,
    validate_every: int = 0,
    on_step: Callable[[int, float], None] | None = None,
    start: PretrainedEnhancer | None = None,
    **provenance,
) -> PretrainedEnhancer:
    """Train on the pictures that are there, from where a broken training of the same inputs stood, and save.

    Args:
        output: file to write; the answer if it is of exactly these inputs. The state of a training that breaks off lies
            beside it.
        save_every: steps between two saves; 0: only when it is cancelled.
        validate_every: steps between two looks at people held out; 0: none. Where their likeness falls it ends, and
            goes back to where it was best.
        on_step: called with the steps done and the last loss; it may raise to cancel.
        start: an Enhancer to go on from.
        provenance: `base_checkpoint` and `base_hash` of the `PretrainedEnhancer`.

    Raises:
        TrainingError: too few people, or a loss that is not finite.
        ConfigError, MissingPackageError, FaceError: as `require_trainable`.
    """
    config = config.going_on(start.heads, start.beta) if start else config
    pictures = folder.pictures()
    validator = _validator(folder, backbone, engine) if validate_every else None
    settings = [
        *sorted(config.as_dict().items()),
        validate_every if validator else 0,
        folder.config.min_similarity,
        __version__,
    ]
    others, begun = validator.names if validator else [], start.digest if start else ""
    fingerprint = digest_of(folder.fingerprint, begun, str(settings), *pictures.names, "held out:", *others)
    known = load_if_same(PretrainedEnhancer, output, fingerprint)
    if known:
        return known
    output.parent.mkdir(parents=True, exist_ok=True)
    likeness = LikenessLoss.of(backbone, engine, config) if config.likeness_steps else None
    anchor = None if start else cross_initialise(backbone, pictures.names, 2)
    trainer = EnhancerTrainer(backbone, anchor, pictures, config, likeness, start)
    validation = Validation(trainer, validator, every=validate_every) if validator else None
    with TrainingRun(trainer, output.with_suffix(".training"), fingerprint, save_every, validation) as run:
        run.resume()
        run.run(lambda step, _: on_step(step, trainer.losses[-1]) if on_step else None)
        record: dict[str, Any] = {
            **config.as_dict(),
            "start": begun,
            "people": len(pictures.names),
            "pictures": len(pictures.prompts),
            "fingerprint": fingerprint,
            "version": __version__,
            "report": run.report(),
        }
        enhancer = PretrainedEnhancer.of(trainer.model, backbone, **provenance, training=record)
        enhancer.save(output)
    return enhancer


def _validator(folder: PeopleDataset, backbone: Backbone, engine: FaceEngine) -> Validator | None:
    """What looks at people held out; None where there is nobody."""
    try:
        return Validator(folder, backbone, engine, most=VALIDATED)
    except TrainingError as error:
        logging.warning("ID-EA: nobody to validate with. %s", error)
        return None
