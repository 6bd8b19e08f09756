"""One person's training in ComfyUI, from inputs to a file: found again, taken up, shown, kept when it breaks off."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import torch
from PIL import Image
from torch import Tensor

from ..idea_core import __version__
from ..idea_core.diffusion.memory import out_of_memory_as
from ..idea_core.enhancers.pretrained import PretrainedEnhancer
from ..idea_core.errors import TrainingError
from ..idea_core.faces import IdEmbeds
from ..idea_core.faces.likeness import likeness_to
from ..idea_core.files.tensorfile import load_if_same
from ..idea_core.identity.identity import Identity
from ..idea_core.identity.thumbnail import encode_thumbnail
from ..idea_core.images import to_pixels
from ..idea_core.text.captions import CAPTIONS
from ..idea_core.training.batches import Photos
from ..idea_core.training.likeness_loss import LikenessLoss
from ..idea_core.training.person import build_person
from ..idea_core.training.run import TrainingRun, keep
from ..idea_core.training.trainer import Trainer, training_record
from ..idea_core.training.watch import Watch, WatchConfig
from .comfy.backbone import ComfyBackbone
from .comfy.checkpoint import checkpoint_meanwhile
from .comfy.face_models import engine_of, face_digest
from .comfy.fingerprint import training_fingerprint
from .comfy.live import show_as_output
from .comfy.notices import show_on_node
from .comfy.paths import AUTOSAVE, output_folder
from .settings import TrainingSettings

PREVIEW_SIZE = 512
TELL_EVERY = 0.5  # seconds


@dataclass(frozen=True, eq=False)
class TrainingJob:
    """What is trained, and how.

    Attributes:
        embeds: the person's face.
        names: celebrity names or a phrase for the cross initialisation.
        face_model: what measures likeness on the way; None: nothing does.
    """

    name: str
    photos: Photos
    embeds: IdEmbeds
    names: tuple[str, ...]
    settings: TrainingSettings
    enhancer: PretrainedEnhancer | None = None
    watch: WatchConfig = WatchConfig()
    face_model: Any = None

    def run(self, model, clip, vae, prompt, node_id) -> tuple[Identity, Tensor | None]:
        """The trained identity, and an IMAGE (1, H, W, 3) of the person before and after if there were looks.

        Where the same inputs were trained before, it is read from disk, and there is no picture.

        Raises:
            TrainingError: it diverged, or memory ran out. What was learnt before is on disk then.
        """
        fingerprint = self.fingerprint(model, clip, vae)
        path = output_folder() / AUTOSAVE / f"{self.name}-{fingerprint[:12]}.safetensors"
        found = load_if_same(Identity, path, fingerprint)
        if found:
            logging.info("ID-EA: %s was trained from the same inputs before: %s", found.trigger, path)
            return found, None
        with (
            checkpoint_meanwhile(prompt, node_id) as checkpoint,
            _Training(self, fingerprint, path, node_id) as training,
        ):
            training.run(model, clip, vae)
            identity = training.identity(*checkpoint())
            self._keep_result(identity, path)
        return identity, training.progress.before_and_after()

    def _keep_result(self, identity: Identity, path: Path) -> None:
        """For the next run of the same inputs; where that fails, the result still goes to the nodes after this one."""
        try:
            identity.save(path)
        except OSError as error:
            logging.warning("ID-EA: %s is trained, but could not be kept. %s", identity.trigger, error)

    def fingerprint(self, model, clip, vae) -> str:
        """SHA-256 of all that the result depends on, but for its thumbnail: that of the first run stays."""
        settings = {
            "version": __version__,
            "name": self.name,
            "names": self.names,
            "notes": list(self.photos.notes),
            "captions": self.settings.captions,
            "precision": self.settings.precision,
            "enhancer": self.enhancer.digest() if self.enhancer else "",
            "watch": None if self.face_model is None else [asdict(self.watch), face_digest(self.face_model)],
            **self.settings.config.as_dict(),
        }
        tensors = [self.photos.images, self.embeds.mean]
        tensors += [] if self.photos.masks is None else [self.photos.masks]
        return training_fingerprint(model, clip, vae, tensors, settings)


@dataclass
class _Training:
    """A job that runs; it keeps what was learnt if it does not come to its end."""

    job: TrainingJob
    fingerprint: str
    path: Path
    node_id: str | None
    progress: Progress = field(init=False)
    started: TrainingRun | None = None

    def __post_init__(self):
        self.progress = Progress(self.job.settings.config.steps, self.node_id)

    def __enter__(self) -> _Training:
        return self

    def __exit__(self, *error) -> None:
        if self.started:
            self.started.__exit__(*error)
            if error[1] is not None and self.started.trainer.losses:
                keep(self._unfinished, self.path, len(self.started.trainer.losses))

    def run(self, model, clip, vae) -> None:
        job, settings = self.job, self.job.settings
        # Held all the while: between a picture and its gradients nothing may push the UNet out.
        engine = engine_of(job.face_model) if settings.config.likeness_weight else None
        height, width = job.photos.images.shape[1:3]
        got = f"out of memory at {width} × {height} pixels"
        with (
            out_of_memory_as(TrainingError("memory for the training", got, "Lower resolution.")),
            ComfyBackbone(model, clip, vae, settings.precision, settings.gradient_checkpointing) as backbone,
        ):
            trainer = Trainer(
                backbone,
                [job.photos],
                job.embeds.mean,
                settings.config,
                job.names,
                CAPTIONS[settings.captions],
                job.enhancer.build_person if job.enhancer else build_person,
                None if engine is None else LikenessLoss.of(backbone, engine, settings.config),
            )
            state = self.path.with_suffix(".training")
            watch = self._watch(trainer, backbone)
            self.started = TrainingRun(trainer, state, self.fingerprint, settings.save_every, watch)
            if watch:
                self.progress.before = self._drawn(watch)
            self.started.resume()
            self.started.run(self.progress.show)
            if watch and not self._seen(watch):
                self.progress.look(len(trainer.losses), self._drawn(watch))

    def _seen(self, watch: Watch) -> bool:
        """Whether the last look in this run was at what came out at last."""
        return self.progress.last is not None and watch.is_due(len(self.started.trainer.losses)) and not watch.ended

    def _drawn(self, watch: Watch) -> Tensor:
        """Pictures (B, H, W, 3) of the person as it is, which end nothing."""
        with self.started.trainer.kv_deltas():
            return watch.draw()

    def identity(self, base_checkpoint: str = "", base_hash: str = "") -> Identity:
        run = self.started
        picture = self.progress.picture()
        record = training_record(run.trainer.config, [self.job.photos], run.trainer.losses, self.fingerprint)
        return run.trainer.identity(
            self.job.name,
            base_checkpoint=base_checkpoint,
            base_hash=base_hash,
            training={**record, "report": run.report()},
            thumbnail="" if picture is None else encode_thumbnail(picture),
        )

    def _watch(self, trainer: Trainer, backbone: ComfyBackbone) -> Watch | None:
        job = self.job
        if not job.watch.every:
            return None

        def likeness(images: Tensor) -> float:
            with backbone.aside():
                return likeness_to(engine_of(job.face_model), job.embeds)(images)

        return Watch(trainer, job.watch, None if job.face_model is None else likeness)

    def _unfinished(self) -> Identity:
        """What was learnt so far, as nobody's result."""
        identity = self.identity()
        return replace(identity, training={**identity.training, "fingerprint": ""})


class Progress:
    """ComfyUI's bar, a line on the node, and pictures on it.

    Attributes:
        before, last: pictures (B, H, W, 3) before the training and of the last look; None without.
    """

    def __init__(self, steps: int, node_id: str | None, unit: str = "steps"):
        self._steps, self._node_id, self._unit = steps, node_id, unit
        self._bar = comfy.utils.ProgressBar(steps)
        self._start: float | None = None  # of the first step done, from which on steps are counted
        self._told, self._done, self._shown = 0.0, 0, 0
        self.before: Tensor | None = None
        self.last: Tensor | None = None

    def picture(self) -> Image.Image | None:
        """The first picture of the last look."""
        return None if self.last is None else _picture(self.last[0])

    def before_and_after(self) -> Tensor | None:
        """IMAGE (1, 2H, B · W, 3): the pictures before the training over those of the last look."""
        if self.before is None or self.last is None:
            return None
        return torch.cat([_row(self.before), _row(self.last)]).cpu()[None]

    def look(self, step: int, images: Tensor) -> None:
        self.last = images
        both = self.before_and_after()
        if both is not None and show_as_output(_small(both), self._node_id):
            self._bar.update_absolute(step, self._steps)
        else:
            self._preview(step, _row(images) if both is None else both[0])

    def _preview(self, step: int, image: Tensor) -> None:
        self._bar.update_absolute(step, self._steps, ("JPEG", _picture(image), PREVIEW_SIZE))

    def show(self, step: int, images: Tensor | None, done: bool = True) -> None:
        """After each step; it raises where the user has cancelled.

        Args:
            done: in this run, and not before.
        """
        comfy.model_management.throw_exception_if_processing_interrupted()
        if images is None:
            self._bar.update_absolute(step, self._steps)
        else:
            self.look(step, images)
        now = time.monotonic()
        if done:
            self._done += 0 if self._start is None else step - self._shown
            self._start = self._start or now
        self._shown = step
        if now - self._told > TELL_EVERY or step == self._steps:
            self._told = now
            show_on_node(f"{step} of {self._steps} {self._unit}{self._pace(step, now)}", self._node_id)

    def _pace(self, step: int, now: float) -> str:
        if not self._done:
            return ""
        each = max(now - self._start, 1e-6) / self._done  # some clocks are coarse
        pace = f"{1 / each:.1f} a second" if each < 1 else f"{each:.1f} s each"
        return f", {pace}, {(self._steps - step) * each:.0f} s left"


def _row(images: Tensor) -> Tensor:
    """(B, H, W, 3) → (H, B · W, 3)"""
    return torch.cat(list(images), dim=1)


def _small(images: Tensor) -> Tensor:
    """(B, H, W, 3), made smaller where it is larger than a preview."""
    scale = PREVIEW_SIZE / max(images.shape[1:3])
    if scale >= 1:
        return images
    return torch.nn.functional.interpolate(images.movedim(-1, 1), scale_factor=scale, mode="area").movedim(1, -1)


def _picture(image: Tensor) -> Image.Image:
    return Image.fromarray(to_pixels(image[None])[0])
