"""A training across people from first to last step: taken up, saved on the way, validated on people held out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .across import AcrossConfig, AcrossTrainer
from .anchor import cross_initialise
from .backbone import Backbone
from .errors import DivergedError, IdeaError, TrainingError
from .faces import FaceEngine
from .people import PeopleFolder, digest_of, validate
from .pretrained import PretrainedEnhancer
from .training_run import TrainingRun
from .version import __version__
from .watch import Judged


@dataclass
class Validation(Judged):
    """Likeness of people held out, from their faces alone, while an Enhancer learns from the others.

    Attributes:
        people: looked at, the first ones.
    """

    folder: PeopleFolder
    engine: FaceEngine
    people: int = 8

    def look(self, step: int) -> None:
        backbone, model = self.trainer.backbone, self.trainer.model
        rows = list(validate(self.folder, backbone, self.engine, model, most=self.people))
        self.judge(step, float(np.mean([row["likeness"] for row in rows])))


def learn_people(
    folder: PeopleFolder,
    backbone: Backbone,
    engine: FaceEngine,
    config: AcrossConfig,
    output: Path,
    save_every: int = 0,
    validate_every: int = 0,
    on_step: Callable[[int, float], None] | None = None,
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
        provenance: `base_checkpoint` and `base_hash` of the `PretrainedEnhancer`.

    Raises:
        TrainingError: too few people, or a loss that is not finite.
    """
    pictures, names = folder.pictures()
    others = _names_held_out(folder) if validate_every else []
    settings = [
        *sorted(config.as_dict().items()),
        validate_every if others else 0,
        folder.config.agreement,
        __version__,
    ]
    fingerprint = digest_of(folder.fingerprint, str(settings), *names, "held out:", *others)
    known = _load(output)
    if known and known.training.get("fingerprint") == fingerprint:
        return known
    output.parent.mkdir(parents=True, exist_ok=True)
    trainer = AcrossTrainer(backbone, cross_initialise(backbone, names, 2), pictures, config)
    validation = Validation(trainer, folder, engine, every=validate_every) if others else None
    run = TrainingRun(trainer, output.with_suffix(".training"), fingerprint, save_every, validation)
    run.take_up()
    try:
        run.run(lambda step, _: on_step(step, trainer.losses[-1]) if on_step else None)
        record: dict[str, Any] = {
            **config.as_dict(),
            "people": len(names),
            "pictures": len(pictures.prompts),
            "fingerprint": fingerprint,
            "version": __version__,
            "report": run.report(),
        }
        enhancer = PretrainedEnhancer.of(trainer.model, backbone, **provenance, training=record)
        enhancer.save(output)
    except DivergedError:
        raise
    except BaseException:
        run.save()
        raise
    run.finish()
    return enhancer


def _names_held_out(folder: PeopleFolder) -> list[str]:
    """Whom a validation can look at; it is left out where there is nobody."""
    try:
        return folder.pictures(held_out=True)[1]
    except TrainingError as error:
        logging.warning("ID-EA: nobody to validate with. %s", error)
        return []


def _load(file: Path) -> PretrainedEnhancer | None:
    """An earlier result; a damaged file counts as none."""
    try:
        return PretrainedEnhancer.load(file)
    except (IdeaError, OSError):
        return None
