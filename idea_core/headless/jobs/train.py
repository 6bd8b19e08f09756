"""One person, from photos on disk to a file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from torch import Tensor

from ...diffusion.backbone import Backbone
from ...diffusion.memory import out_of_memory_as
from ...enhancers.config import RefineConfig
from ...enhancers.pretrained import PretrainedEnhancer
from ...enhancers.refine import OnPicture, Refiner
from ...errors import ConfigError, DivergedError, TrainingError
from ...faces.likeness import likeness_to
from ...files.tensorfile import load_if_same
from ...identity.checks import require_name
from ...identity.identity import Identity
from ...method.anchor import celebrity_names
from ...text.captions import CAPTIONS
from ...training.batches import count_photos
from ...training.config import TrainConfig
from ...training.likeness_loss import LikenessLoss
from ...training.person import build_person
from ...training.run import TrainingRun, keep
from ...training.trainer import Trainer, training_record
from ...training.watch import Watch, WatchConfig
from ...version import __version__
from .sources import FaceSource, ModelSource, PhotoSource, Prepared

OnTrainer = Callable[[Trainer, int, Tensor | None], None]
"""Called after each step with the trainer, the steps done, and pictures (B, H, W, 3) if it was looked at; it may raise
to cancel."""


@dataclass(frozen=True)
class TrainJob:
    """What is trained, from what, and where the result goes.

    Attributes:
        name: trigger name.
        output: the identity's file.
        captions: one of `CAPTIONS`.
        names: celebrity names or a phrase for the cross initialisation.
        enhancer: file of a `PretrainedEnhancer` that the person starts from.
        clip_layer: text encoder layer, counted from the end; None: the model's own.
        gradient_checkpointing: less memory, a third more time.
        save_every: steps between two saves of the training's state; 0: only when it breaks off.
        resume: go on with a broken run of the same inputs, if it left its state.
        watch: when the training is looked at, and what ends it early.
        refine: how a person of 0 steps is looked at and corrected, with the seed of `config`; None: not at all.
    """

    name: str
    output: Path
    model: ModelSource
    photos: PhotoSource
    faces: FaceSource = FaceSource()
    config: TrainConfig = TrainConfig()
    captions: str = "photo"
    names: tuple[str, ...] = field(default_factory=celebrity_names)
    enhancer: Path | None = None
    clip_layer: int | None = None
    gradient_checkpointing: bool = False
    save_every: int = 0
    resume: bool = True
    watch: WatchConfig = WatchConfig()
    refine: RefineConfig | None = None

    def __post_init__(self):
        object.__setattr__(self, "name", require_name(self.name))
        if not self.config.steps and not self.enhancer:
            raise ConfigError("at least 1 step without an ID-Enhancer", "0", "Give --steps, or --enhancer.")
        if self.refine and self.config.steps:
            remedy = "Give --steps 0 and --enhancer, or leave --refine out."
            raise ConfigError("a person of 0 steps to refine", f"{self.config.steps} steps", remedy)

    @property
    def state_file(self) -> Path:
        return self.output.with_suffix(".training")

    def fingerprint(self, model_digest: str) -> str:
        """SHA-256 of all that the result depends on.

        Args:
            model_digest: `self.model.digest()`, which takes long for a large model.
        """
        settings = {
            "version": __version__,
            "name": self.name,
            "model": model_digest,
            "dtype": self.model.chosen_dtype(),
            "faces": self.faces.digest() if self._needs_faces else "",
            "prediction": self.model.prediction,
            "photos": self.photos.digest(),
            "crop": self.photos.crop,
            "resolution": self.photos.resolution,
            "focus": self.photos.focus,
            "captions": CAPTIONS[self.captions],
            "names": self.names,
            "enhancer": hashlib.sha256(self.enhancer.read_bytes()).hexdigest() if self.enhancer else "",
            "clip_layer": self.clip_layer,
            "watch": asdict(self.watch),
            **self.config.as_dict(),
            **({"refine": self.refine.as_dict()} if self.refine else {}),
        }
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    @property
    def _needs_faces(self) -> bool:
        looked_at = self.watch.target is not None or self.config.likeness_weight > 0 or self.refine is not None
        return self.photos.needs_faces or looked_at

    def finished(self, fingerprint: str) -> Identity | None:
        """The result of an earlier run of the same inputs, if it is there; a damaged file counts as none."""
        return load_if_same(Identity, self.output, fingerprint)

    def require_output(self) -> None:
        """See that the result can be written, before anything is trained.

        Raises:
            ConfigError: an output of another kind than a .safetensors file.
            OSError: a folder that cannot be written to.
        """
        require_output(self.output)

    def run(
        self,
        model_digest: str,
        fingerprint: str,
        on_step: OnTrainer | None = None,
        on_picture: OnPicture | None = None,
    ) -> Identity:
        """Train and save.

        Args:
            fingerprint: `self.fingerprint(model_digest)`, for which all photos and face models are read.
            on_picture: called while a person is refined.

        Raises:
            IdeaError: an input that does not fit, or a diverging training.
            OSError: the file could not be written; an older one is whole.
        """
        self.require_output()
        enhancer = self._load_enhancer(model_digest)
        prepared = self.photos.prepare(self.faces)
        if enhancer and not self.config.steps:
            instant = self._instant(enhancer, prepared.embeds.mean, model_digest, on_picture)
            training = {**instant.training, "photos": count_photos(prepared.photos), "fingerprint": fingerprint}
            identity = dataclasses.replace(instant, training=training)
            identity.save(self.output)
            self.state_file.unlink(missing_ok=True)
            return identity
        got = f"out of memory at batch_size {self.config.batch_size} and {self.photos.resolution} pixels"
        try:
            with out_of_memory_as(TrainingError("memory for the training", got, "Lower the resolution.")):
                trainer = self._trainer(prepared, enhancer)
                watch = self._watch(trainer, prepared)
                with TrainingRun(trainer, self.state_file, fingerprint, self.save_every, watch) as run:
                    if self.resume:
                        run.resume()
                    run.run(lambda step, images: on_step(trainer, step, images) if on_step else None)
                    record = training_record(trainer.config, prepared.photos, trainer.losses, fingerprint)
                    identity = trainer.identity(
                        self.name,
                        base_checkpoint=self.model.path.name,
                        base_hash=model_digest,
                        training={**record, "report": run.report()},
                    )
                    identity.save(self.output)
                    return identity
        except DivergedError:
            self._keep(trainer)
            raise

    def _instant(
        self, enhancer: PretrainedEnhancer, face: Tensor, model_digest: str, on_picture: OnPicture | None
    ) -> Identity:
        """The person from the face (512,) alone, refined if that is asked for."""
        if self.refine is None:
            return enhancer.identity(self.name, face)
        config = dataclasses.replace(self.refine, seed=self.config.seed)
        layer = enhancer.clip_layer if self.clip_layer is None else self.clip_layer
        refiner = Refiner(self._backbone(layer), enhancer, self.faces.load(), config)
        looks = refiner.refine(face, on_picture)
        provenance = {"base_checkpoint": self.model.path.name, "base_hash": model_digest}
        return refiner.identity(self.name, face, looks, **provenance)

    def _watch(self, trainer: Trainer, prepared: Prepared) -> Watch | None:
        """What looks at the training, and measures likeness where there is a target."""
        if not self.watch.every:
            return None
        scored = self.watch.target is not None
        return Watch(trainer, self.watch, likeness_to(self.faces.load(), prepared.embeds) if scored else None)

    def _keep(self, trainer: Trainer) -> None:
        """What a diverging training had learnt before."""
        if trainer.losses:
            learnt = partial(trainer.identity, self.name, base_checkpoint=self.model.path.name)
            keep(learnt, self.output, len(trainer.losses))

    def _load_enhancer(self, model_digest: str) -> PretrainedEnhancer | None:
        if self.enhancer is None:
            return None
        enhancer = PretrainedEnhancer.load(self.enhancer)
        enhancer.warn_of_other_base(self.enhancer.name, model_digest, self.model.path.name)
        return enhancer

    def _trainer(self, prepared: Prepared, enhancer: PretrainedEnhancer | None) -> Trainer:
        backbone = self._backbone(self.clip_layer)
        config = enhancer.configure(self.config) if enhancer else self.config
        build = enhancer.build_person if enhancer else build_person
        captions, face = CAPTIONS[self.captions], prepared.embeds.mean
        likeness = LikenessLoss.of(backbone, self.faces.load(), config) if config.likeness_weight else None
        return Trainer(backbone, prepared.photos, face, config, self.names, captions, build, likeness)

    def _backbone(self, clip_layer: int | None) -> Backbone:
        from ..diffusers import DiffusersBackbone

        return DiffusersBackbone(self.model.load(), clip_layer, self.gradient_checkpointing)


def require_output(output: Path) -> None:
    """Raise `ConfigError` or OSError unless a .safetensors file can be written there."""
    if output.suffix != ".safetensors" or output.is_dir():
        raise ConfigError("an output file that ends in .safetensors", str(output), "Change the output.")
    output.parent.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=output.parent).close()
