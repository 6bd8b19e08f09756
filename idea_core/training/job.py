"""One person's training, from photos to a file, for both front ends."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from ..diffusion.backbone import Backbone
from ..diffusion.memory import out_of_memory_as
from ..errors import TrainingError
from ..faces import FaceEngine, IdEmbeds
from ..identity.identity import Identity
from ..identity.thumbnail import thumbnail_of
from ..method.anchor import celebrity_names
from ..method.axes import AXES_FOLDER, axes_kept_in
from ..text.captions import CAPTIONS
from ..version import __version__
from .batches import Photos, count_photos
from .config import TrainConfig
from .output import Output
from .preview import Portrait, Score, WatchConfig, watch_person
from .run import OnProgress, Progress, TrainingRun
from .self_check import require_right_gradients
from .start import NamesStart, Start
from .trainer import Trainer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class PersonSpec:
    """Who is trained, and how.

    Attributes:
        name: trigger name.
        photos: one entry for each size.
        embeds: the person's face.
        captions: one of `CAPTIONS`.
        names: names of well-known people, or a phrase, for the start.
        start: where the person starts.
        watch: when previews are drawn, and when the training ends early.
    """

    name: str
    photos: Sequence[Photos]
    embeds: IdEmbeds
    config: TrainConfig = TrainConfig()
    captions: str = "photo"
    names: tuple[str, ...] = field(default_factory=celebrity_names)
    start: Start = NamesStart()
    watch: WatchConfig = WatchConfig()


def train_person(
    backbone: Backbone,
    spec: PersonSpec,
    output: Output,
    engine: FaceEngine | None = None,
    score: Score | None = None,
    on_progress: OnProgress | None = None,
) -> Identity:
    """Train a person, and save the result.

    Where the training diverges or is cancelled, the person as trained so far is saved beside `output.path`.

    Args:
        engine: as in `Trainer.of`.
        score: measures the previews; None: they are only shown.

    Raises:
        IdeaError: an input that does not fit, a training that diverges, or no memory.
        OSError: the file could not be written; an older one is whole.
    """
    latest = Progress(0)  # with images

    def show(progress: Progress) -> None:
        nonlocal latest
        if progress.images is not None:
            latest = progress
        if on_progress:
            on_progress(progress)

    height, width = spec.photos[0].images.shape[1:3]
    got = f"out of memory at {width} × {height} pixels and batch_size {spec.config.batch_size}"
    with out_of_memory_as(TrainingError("memory for the training", got, "Lower the resolution.")):
        captions, face = CAPTIONS[spec.captions], spec.embeds.mean
        show(Progress(0, doing=f"encoding {count_photos(spec.photos)} photos"))
        with axes_kept_in(output.path.parent / AXES_FOLDER):
            trainer = Trainer.of(backbone, spec.photos, face, spec.config, spec.names, captions, spec.start, engine)
        portrait = Portrait(trainer, spec.watch.preview) if spec.watch.every else None
        watch = None if portrait is None else watch_person(portrait, spec.watch, score)
        run = TrainingRun(trainer, output.state_file, output.fingerprint, output.save_every, watch)
        try:
            with run:
                if portrait and spec.watch.before_and_after:
                    show(Progress(0, doing="drawing the person before the training"))
                    show(_preview(trainer, portrait))
                if output.resume:
                    run.resume()
                if not trainer.losses and trainer.steps:
                    require_right_gradients(trainer)
                show(Progress(len(trainer.losses), trainer.losses, doing="training"))
                run.run(show)
                ended_between = run.stopping.reason or latest.step != len(trainer.losses)
                if portrait and spec.watch.before_and_after and ended_between:
                    show(_preview(trainer, portrait))
                identity = _identity(run, spec, output.fingerprint, latest, output.base())
                output.write(identity, identity.trigger)
        except BaseException:
            if trainer.losses:
                _save_partial(run, spec, latest, output.path)
            raise
    return identity


def _preview(trainer: Trainer, portrait: Portrait) -> Progress:
    with trainer.active():
        return Progress(len(trainer.losses), trainer.losses, portrait.images())


def _save_partial(run: TrainingRun[Trainer], spec: PersonSpec, latest: Progress, path: Path) -> None:
    """Save the person of a training that broke off; an error here must not hide the one that is being raised."""
    steps = len(run.training.losses)
    path = path.with_stem(f"{path.stem}-step-{steps:05}")
    try:
        identity = _identity(run, spec, "", latest)
        identity.save(path)
        logger.info("ID-EA: %s is saved as trained in %d steps: %s", identity.trigger, steps, path)
    except Exception as error:
        logger.warning("ID-EA: the partly trained person could not be saved. %s", error)


def _identity(
    run: TrainingRun[Trainer],
    spec: PersonSpec,
    fingerprint: str,
    latest: Progress,
    base: Mapping[str, str] = MappingProxyType({}),
) -> Identity:
    """The person as trained so far; the thumbnail is the first image of the latest preview after step 0."""
    trainer = run.training
    record = {
        **trainer.config.as_dict(),
        "sizes": [f"{part.images.shape[2]}x{part.images.shape[1]}" for part in spec.photos],
        "photos": count_photos(spec.photos),
        "losses": [round(loss, 6) for loss in trainer.losses],
        "fingerprint": fingerprint,
        "version": __version__,
        "report": run.report(),
    }
    thumbnail = "" if latest.images is None or not latest.step else thumbnail_of(latest.images[0])
    return trainer.identity(spec.name, record, thumbnail, **base)
