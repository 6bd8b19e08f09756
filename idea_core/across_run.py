"""A training across people from first to last step: taken up, saved on the way, validated on people held out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .across import AcrossConfig, AcrossTrainer
from .anchor import cross_initialise
from .backbone import Backbone
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
        every: steps between two looks; 0: never.
        people: looked at, the first ones.
    """

    folder: PeopleFolder
    engine: FaceEngine
    every: int = 0
    people: int = 8

    def is_due(self, step: int) -> bool:
        return bool(self.every) and step % self.every == 0

    def look(self, step: int) -> None:
        backbone, model = self.trainer.backbone, self.trainer.model
        rows = list(validate(self.folder, backbone, self.engine, model, most=self.people))
        self.judge(step, float(np.mean([row["likeness"] for row in rows])))


def learn_people(
    folder: PeopleFolder,
    backbone: Backbone,
    engine: FaceEngine,
    config: AcrossConfig,
    state_file: Path,
    save_every: int = 0,
    validate_every: int = 0,
    on_step: Callable[[int, float], None] | None = None,
    known: PretrainedEnhancer | None = None,
    **provenance,
) -> PretrainedEnhancer:
    """Train on the pictures that are there, from where a broken training of the same inputs stood.

    Args:
        state_file: where it is saved if it breaks off.
        save_every: steps between two saves; 0: only when it is cancelled.
        validate_every: steps between two looks at people held out; 0: none. Where their likeness falls it ends, and
            goes back to where it was best.
        on_step: called with the steps done and the last loss; it may raise to cancel.
        known: an earlier result, which is the answer if it is of exactly these inputs.
        provenance: `base_checkpoint` and `base_hash` of the `PretrainedEnhancer`.

    Raises:
        TrainingError: too few people, or a loss that is not finite.
    """
    pictures, names = folder.pictures()
    settings = str(sorted(config.as_dict().items()))
    fingerprint = digest_of(folder.fingerprint, settings, str(validate_every), *names)
    if known is not None and known.training.get("fingerprint") == fingerprint:
        return known
    trainer = AcrossTrainer(backbone, cross_initialise(backbone, names, 2), pictures, config)
    validation = Validation(trainer, folder, engine, validate_every) if validate_every else None
    run = TrainingRun(trainer, state_file, fingerprint, save_every, validation)
    run.take_up()
    run.run(lambda step, _: on_step(step, trainer.losses[-1]) if on_step else None)
    record: dict[str, Any] = {
        **config.as_dict(),
        "people": len(names),
        "pictures": len(pictures.prompts),
        "fingerprint": fingerprint,
        "version": __version__,
        "report": run.report(),
    }
    run.finish()
    return PretrainedEnhancer.of(trainer.model, backbone, **provenance, training=record)
