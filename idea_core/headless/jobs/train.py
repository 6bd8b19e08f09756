"""One person, from photos on disk to a file."""

from __future__ import annotations

import dataclasses
import tempfile
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

from ...diffusion.backbone import Backbone
from ...enhancers.config import RefineConfig
from ...enhancers.pretrained import PretrainedEnhancer
from ...enhancers.refine import OnPicture, Refiner
from ...errors import ConfigError
from ...faces.likeness import likeness_to
from ...files.digest import Digest, file_digest
from ...identity.base_ref import load_if_same
from ...identity.checks import require_name
from ...identity.identity import Identity
from ...method.anchor import celebrity_names
from ...text.captions import CAPTIONS
from ...training.batches import count_photos
from ...training.config import TrainConfig
from ...training.job import PersonSpec, train_person
from ...training.output import Output
from ...training.person import NamesStart
from ...training.preview import WatchConfig
from ...training.run import OnProgress
from ...version import __version__
from .photo_source import PhotoSource, Prepared
from .sources import FaceSource, ModelSource


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

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all that the result depends on; the model, photos and face models are read for it once."""
        settings = {
            "version": __version__,
            "name": self.name,
            "model": self.model.digest,
            "dtype": self.model.chosen_dtype(),
            "faces": self.faces.digest() if self._needs_faces else "",
            "prediction": self.model.prediction,
            "photos": self.photos.digest(),
            "crop": self.photos.crop,
            "resolution": self.photos.resolution,
            "focus": self.photos.focus,
            "captions": CAPTIONS[self.captions],
            "names": self.names,
            "enhancer": file_digest(self.enhancer) if self.enhancer else "",
            "clip_layer": self.clip_layer,
            "watch": asdict(self.watch),
            **self.config.as_dict(),
            **({"refine": self.refine.as_dict()} if self.refine else {}),
        }
        return Digest().add_json(settings).hex()

    @property
    def _needs_faces(self) -> bool:
        looked_at = self.watch.target is not None or self.config.likeness_weight > 0 or self.refine is not None
        return self.photos.needs_faces or looked_at

    def finished(self) -> Identity | None:
        """The result of an earlier run of the same inputs, if it is there; a damaged file counts as none."""
        return load_if_same(Identity.load, self.output, self.fingerprint)

    def require_output(self) -> None:
        """See that the result can be written, before anything is trained.

        Raises:
            ConfigError: an output of another kind than a .safetensors file.
            OSError: a folder that cannot be written to.
        """
        require_output(self.output)

    def run(self, on_progress: OnProgress | None = None, on_picture: OnPicture | None = None) -> Identity:
        """Train and save; a person of 0 steps is made from the face alone.

        Args:
            on_picture: called while a person is refined.

        Raises:
            IdeaError: an input that does not fit, or a training that diverges.
            OSError: the file could not be written; an older one is whole.
        """
        self.require_output()
        enhancer = self._load_enhancer()
        prepared = self.photos.prepare(self.faces)
        if enhancer and not self.config.steps:
            return self._make_instant(enhancer, prepared, on_picture)
        return self._train(enhancer, prepared, on_progress)

    def _output(self) -> Output:
        return Output(self.output, self.fingerprint, self.save_every, self.resume, self._base)

    def _base(self) -> dict[str, str]:
        return {"base_checkpoint": self.model.path.name, "base_hash": self.model.digest}

    def _train(
        self, enhancer: PretrainedEnhancer | None, prepared: Prepared, on_progress: OnProgress | None
    ) -> Identity:
        spec = PersonSpec(
            self.name,
            prepared.photos,
            prepared.embeds,
            self.config,
            self.captions,
            self.names,
            enhancer or NamesStart(),
            self.watch,
        )
        engine = self.faces.load() if self.config.likeness_weight or self.watch.target is not None else None
        score = None if engine is None or self.watch.target is None else likeness_to(engine, prepared.embeds)
        return train_person(self._backbone(self.clip_layer), spec, self._output(), engine, score, on_progress)

    def _make_instant(self, enhancer: PretrainedEnhancer, prepared: Prepared, on_picture: OnPicture | None) -> Identity:
        """The person from the face alone, refined if that is asked for."""
        face, output = prepared.embeds.mean, self._output()
        if self.refine is None:
            identity = enhancer.identity(self.name, face)
        else:
            config = dataclasses.replace(self.refine, seed=self.config.seed)
            layer = enhancer.base_ref.clip_layer if self.clip_layer is None else self.clip_layer
            refiner = Refiner(self._backbone(layer), enhancer, self.faces.load(), config)
            identity = refiner.identity(self.name, face, refiner.refine(face, on_picture), **self._base())
        training = {**identity.training, "photos": count_photos(prepared.photos), "fingerprint": self.fingerprint}
        identity = dataclasses.replace(identity, training=training)
        identity.save(output.path)
        output.state_file.unlink(missing_ok=True)
        return identity

    def _load_enhancer(self) -> PretrainedEnhancer | None:
        if self.enhancer is None:
            return None
        enhancer = PretrainedEnhancer.load(self.enhancer)
        enhancer.warn_of_other_base(self.enhancer.name, self.model.digest, self.model.path.name)
        return enhancer

    def _backbone(self, clip_layer: int | None) -> Backbone:
        from ..diffusers import DiffusersBackbone

        return DiffusersBackbone(self.model.load(), clip_layer, self.gradient_checkpointing)


def require_output(output: Path) -> None:
    """Raise `ConfigError` or OSError unless a .safetensors file can be written there."""
    if output.suffix != ".safetensors" or output.is_dir():
        raise ConfigError("an output file that ends in .safetensors", str(output), "Change the output.")
    output.parent.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=output.parent).close()
