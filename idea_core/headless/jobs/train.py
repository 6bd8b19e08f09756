"""One person's training on diffusers, from photos on disk to a file."""

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
from ...settings import MAX_SEED
from ...text.captions import CAPTIONS
from ...training.batches import count_photos
from ...training.config import TrainConfig
from ...training.job import PersonSpec, train_person
from ...training.output import Output
from ...training.preview import WatchConfig
from ...training.run import OnProgress
from ...training.start import NamesStart, Start
from ...version import __version__
from .photo_source import PhotoSource, Prepared
from .sources import FaceSource, ModelSource


@dataclass(frozen=True)
class TrainJob:
    """A person to train, the inputs, and the output.

    Attributes:
        name: trigger name.
        output: file of the identity.
        captions: one of `CAPTIONS`.
        names: celebrity names or a phrase for the cross initialisation.
        enhancer: file of a `PretrainedEnhancer` that the person starts from.
        start: another start, whose `repr` says all of it; None: the Enhancer's prediction, or the names.
        clip_layer: text encoder layer, counted from the end; None: the model's own.
        gradient_checkpointing: less memory, a third more time.
        compiled: compile the UNet; it pays in long trainings alone.
        save_every: steps between two saves of the training's state; 0: only when it breaks off.
        resume: continue a run of the same inputs that broke off and saved its state.
        watch: previews on the way, and early stopping.
        refine: refinement of a person of 0 steps, its seed counted from that of `config`; None: no refinement.
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
    start: Start | None = None
    clip_layer: int | None = None
    gradient_checkpointing: bool = False
    compiled: bool = False
    save_every: int = 0
    resume: bool = True
    watch: WatchConfig = WatchConfig()
    refine: RefineConfig | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", require_name(self.name))
        if not self.config.steps and not self.enhancer and self.start is None:
            raise ConfigError("at least 1 step without an ID-Enhancer", "0", "Give --steps, or --enhancer.")
        if self.refine and self.config.steps:
            remedy = "Give --steps 0 and --enhancer, or leave --refine out."
            raise ConfigError("a person of 0 steps to refine", f"{self.config.steps} steps", remedy)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything that the result depends on. It reads the model, photos and face models once."""
        needs_faces = self.photos.needs_faces or self._measures_likeness or self.refine
        settings = {
            "version": __version__,
            "name": self.name,
            "model": self.model.digest,
            "dtype": self.model.chosen_dtype(),
            "faces": self.faces.digest() if needs_faces else "",
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
            **({"start_at": repr(self.start)} if self.start else {}),
        }
        return Digest().add_json(settings).hex()

    @property
    def _measures_likeness(self) -> bool:
        return self.watch.target is not None or self.config.likeness_weight > 0

    def finished(self) -> Identity | None:
        """The result of an earlier run of the same inputs; None without one, or if its file is damaged."""
        return load_if_same(Identity.load, self.output, self.fingerprint)

    def run(self, on_progress: OnProgress | None = None, on_picture: OnPicture | None = None) -> Identity:
        """Train and save; a person of 0 steps is predicted from the face alone.

        Args:
            on_picture: called while a person is refined.

        Raises:
            IdeaError: an input that does not fit, or a training that diverges.
            OSError: the file could not be written; an older file is left whole.
        """
        require_output(self.output)
        enhancer = None
        if self.enhancer:
            enhancer = PretrainedEnhancer.load(self.enhancer)
            enhancer.warn_of_other_base(self.enhancer.name, self.model.digest, self.model.path.name)
        prepared, config = self.photos.prepare(self.faces), self.config
        output = Output(self.output, self.fingerprint, self.save_every, self.resume, self.model.provenance)
        if enhancer and not config.steps and self.start is None:
            return self._predict(enhancer, prepared, output, on_picture)
        start = self.start or enhancer or NamesStart()
        spec = PersonSpec(self.name, *prepared, config, self.captions, self.names, start, self.watch)
        engine = self.faces.load() if self._measures_likeness else None
        score = likeness_to(engine, prepared.embeds) if engine and self.watch.target is not None else None
        return train_person(self._backbone(self.clip_layer), spec, output, engine, score, on_progress)

    def _predict(
        self, enhancer: PretrainedEnhancer, prepared: Prepared, output: Output, on_picture: OnPicture | None
    ) -> Identity:
        """The person from the face embedding alone, refined if `refine` says so."""
        face = prepared.embeds.mean
        if self.refine is None:
            identity = enhancer.identity(self.name, face)
        else:
            config = dataclasses.replace(self.refine, seed=(self.refine.seed + self.config.seed) % (MAX_SEED + 1))
            layer = enhancer.base_ref.clip_layer if self.clip_layer is None else self.clip_layer
            refiner = Refiner(self._backbone(layer), enhancer, self.faces.load(), config)
            identity = refiner.identity(self.name, face, refiner.refine(face, on_picture), **self.model.provenance())
        training = {**identity.training, "photos": count_photos(prepared.photos), "fingerprint": self.fingerprint}
        identity = dataclasses.replace(identity, training=training)
        identity.save(output.path)
        output.state_file.unlink(missing_ok=True)
        return identity

    def _backbone(self, clip_layer: int | None) -> Backbone:
        from ..diffusers import backbone_of

        backbone = backbone_of(self.model.load(), clip_layer, self.gradient_checkpointing)
        if self.compiled:
            backbone.compile()
        return backbone


def require_output(output: Path) -> None:
    """Raise `ConfigError` or OSError unless `output` is a .safetensors file that can be written."""
    if output.suffix != ".safetensors" or output.is_dir():
        raise ConfigError("an output file that ends in .safetensors", str(output), "Change the output.")
    output.parent.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=output.parent).close()
