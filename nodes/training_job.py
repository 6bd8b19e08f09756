"""One person's training in ComfyUI: found again if its inputs are the same, shown on the node, saved."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor

from ..idea_core import __version__
from ..idea_core.enhancers.pretrained import PretrainedEnhancer
from ..idea_core.faces import IdEmbeds
from ..idea_core.faces.likeness import likeness_to
from ..idea_core.identity.base_ref import load_if_same
from ..idea_core.identity.identity import Identity
from ..idea_core.training.batches import Photos
from ..idea_core.training.job import PersonSpec, train_person
from ..idea_core.training.output import Output
from ..idea_core.training.person import NamesStart
from ..idea_core.training.preview import Score, WatchConfig
from ..idea_core.training.run import Progress
from .comfy.backbone import ComfyBackbone
from .comfy.checkpoint import checkpoint_meanwhile
from .comfy.face_models import engine_of, face_digest
from .comfy.fingerprint import training_fingerprint
from .comfy.paths import AUTOSAVE, output_folder
from .comfy.progress import NodeProgress
from .settings import TrainingSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class TrainingJob:
    """What is trained, and how.

    Attributes:
        embeds: the person's face.
        names: names of well-known people, or a phrase, that the person starts from.
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

        Where the same inputs were trained before, it is read from disk, and there is no image.

        Raises:
            TrainingError: it diverged, or memory ran out. What was learnt before is on disk then.
        """
        fingerprint = self.fingerprint(model, clip, vae)
        path = output_folder() / AUTOSAVE / f"{self.name}-{fingerprint[:12]}.safetensors"
        found = load_if_same(Identity.load, path, fingerprint)
        if found:
            logger.info("ID-EA: %s was trained from the same inputs before: %s", found.trigger, path)
            return found, None
        settings, shown = self.settings, NodeProgress(self.settings.config.steps, node_id)
        # Held all the while: between an image and its gradients nothing may push the UNet out.
        engine = engine_of(self.face_model) if settings.config.likeness_weight else None
        with (
            checkpoint_meanwhile(prompt, node_id) as base,
            ComfyBackbone(model, clip, vae, settings.precision, settings.gradient_checkpointing) as backbone,
        ):
            output = Output(path, fingerprint, settings.save_every, base=base, required=False)
            score = self._score(backbone)
            identity = train_person(backbone, self._spec(), output, engine, score, lambda done: _show(shown, done))
        return identity, shown.before_and_after()

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

    def _spec(self) -> PersonSpec:
        settings, start = self.settings, self.enhancer or NamesStart()
        watch = replace(self.watch, before_and_after=True)
        return PersonSpec(
            self.name, [self.photos], self.embeds, settings.config, settings.captions, self.names, start, watch
        )

    def _score(self, backbone: ComfyBackbone) -> Score | None:
        """Measures likeness, with face models that may push the UNet out."""
        if self.face_model is None:
            return None

        def score(images: Tensor) -> float:
            with backbone.aside():
                return likeness_to(engine_of(self.face_model), self.embeds)(images)

        return score


def _show(shown: NodeProgress, done: Progress) -> None:
    if done.step:
        shown.show(done.step, done.images)
    else:
        shown.before = done.images
