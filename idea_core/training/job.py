"""One person's training, from photos to a file; both front ends call it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from torch import Tensor

from ..diffusion.backbone import Backbone
from ..diffusion.memory import out_of_memory_as
from ..errors import TrainingError
from ..faces import FaceEngine, IdEmbeds
from ..identity.identity import Identity
from ..identity.thumbnail import thumbnail_of
from ..method.anchor import celebrity_names
from ..text.captions import CAPTIONS
from ..version import __version__
from .batches import Photos, count_photos
from .config import TrainConfig
from .likeness_loss import LikenessLoss
from .output import Output, save_partial
from .person import NamesStart, Start
from .preview import Score, WatchConfig, preview_images, watch_person
from .run import OnProgress, Progress, TrainingRun
from .trainer import Trainer


@dataclass(frozen=True, eq=False)
class PersonSpec:
    """Who is trained, and how.

    Attributes:
        name: trigger name.
        photos: one entry a size.
        embeds: the person's face.
        captions: one of `CAPTIONS`.
        names: names of well-known people, or a phrase, that the person starts from.
        start: where the person starts.
        watch: when the training is looked at, and what ends it early.
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
    """Train a person, and save.

    What was learnt when the training diverges or is cancelled is saved beside `output.path`.

    Args:
        engine: finds faces for the likeness loss; needed where `spec.config.likeness_weight` is above 0.
        score: measures the images on the way; None: they are only shown.

    Raises:
        IdeaError: an input that does not fit, a training that diverges, or no memory.
        OSError: the file could not be written; an older one is whole.
    """
    last: list[Tensor] = []

    def show(progress: Progress) -> None:
        if progress.images is not None and progress.step:
            last[:] = [progress.images]
        if on_progress:
            on_progress(progress)

    with _memory_guard(spec):
        trainer = _trainer(backbone, spec, engine)
        watch = watch_person(trainer, spec.watch, score)
        run = TrainingRun(trainer, output.state_file, output.fingerprint, output.save_every, watch)
        try:
            with run:
                _train(run, spec, output, show)
                identity = _identity(run, spec, output.fingerprint, last, output.base())
                output.write(identity, identity.trigger)
        except BaseException:
            if trainer.losses:
                save_partial(lambda: _identity(run, spec, "", last), output.path, len(trainer.losses))
            raise
    return identity


def _memory_guard(spec: PersonSpec) -> AbstractContextManager[None]:
    height, width = spec.photos[0].images.shape[1:3]
    got = f"out of memory at {width} × {height} pixels and batch_size {spec.config.batch_size}"
    return out_of_memory_as(TrainingError("memory for the training", got, "Lower the resolution."))


def _train(run: TrainingRun, spec: PersonSpec, output: Output, show: OnProgress) -> None:
    """Train to the end; where that is asked for, show the person before and after."""
    shown_at = -1

    def note(progress: Progress) -> None:
        nonlocal shown_at
        shown_at = shown_at if progress.images is None else progress.step
        show(progress)

    around = run.watch is not None and spec.watch.before_and_after
    if around:
        show(Progress(0, images=_images(run.training, spec)))
    if output.resume:
        run.resume()
    run.run(note)
    steps = len(run.training.losses)
    if around and (run.watch.stopping.reason or shown_at != steps):
        show(Progress(steps, images=_images(run.training, spec)))


def _trainer(backbone: Backbone, spec: PersonSpec, engine: FaceEngine | None) -> Trainer:
    likeness = None
    if engine is not None and spec.config.likeness_weight:
        likeness = LikenessLoss.of(backbone, engine, spec.config)
    captions, face = CAPTIONS[spec.captions], spec.embeds.mean
    return Trainer.of(backbone, spec.photos, face, spec.config, spec.names, captions, spec.start, likeness)


def _images(trainer: Trainer, spec: PersonSpec) -> Tensor:
    with trainer.active():
        return preview_images(trainer, spec.watch.preview)


def _identity(
    run: TrainingRun[Trainer],
    spec: PersonSpec,
    fingerprint: str,
    images: Sequence[Tensor],
    base: Mapping[str, str] = MappingProxyType({}),
) -> Identity:
    """The person as trained so far, with the first of the images as thumbnail."""
    trainer = run.training
    return trainer.identity(
        spec.name,
        training={**training_record(trainer.config, spec.photos, trainer.losses, fingerprint), "report": run.report()},
        thumbnail=thumbnail_of(images[0][0]) if images else "",
        **base,
    )


def training_record(
    config: TrainConfig, photos: Sequence[Photos], losses: Sequence[float], fingerprint: str
) -> dict[str, Any]:
    """What an identity tells of its training (`Identity.training`)."""
    return {
        **config.as_dict(),
        "sizes": [f"{part.images.shape[2]}x{part.images.shape[1]}" for part in photos],
        "photos": count_photos(photos),
        "losses": [round(loss, 6) for loss in losses],
        "fingerprint": fingerprint,
        "version": __version__,
    }
