"""One person's training in ComfyUI: saved, shown on the node, and read from disk if its inputs are the same."""

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
from ..idea_core.training.preview import Score, WatchConfig
from ..idea_core.training.start import NamesStart
from .comfy.backbone import LoadedModels, backbone_of
from .comfy.checkpoint import checkpoint_meanwhile
from .comfy.face_models import engine_of, face_digest
from .comfy.fingerprint import training_fingerprint
from .comfy.notices import show_on_node
from .comfy.paths import AUTOSAVE, output_folder, shown_path
from .comfy.training_view import TrainingView, training_sheet
from .settings import TrainingSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class TrainingJob:
    """Who is trained, and how.

    Attributes:
        embeds: the person's face.
        names: names of famous people, or a phrase, at whose mean the training starts.
        face_model: measures the face similarity of the previews; None: nothing does.
    """

    name: str
    photos: Photos
    embeds: IdEmbeds
    names: tuple[str, ...]
    settings: TrainingSettings
    enhancer: PretrainedEnhancer | None = None
    watch: WatchConfig = WatchConfig()
    face_model: Any = None

    def run(self, model, clip, vae, prompt, node_id) -> tuple[Identity, Tensor]:
        """The trained identity, and an IMAGE (1, H, W, 3): the loss, and the person before and after if it was drawn.

        If the same inputs were trained before, the identity is read from disk, with the loss alone.

        Raises:
            TrainingError: the training diverged, or memory ran out. A partial result is on disk then.
        """
        fingerprint = self.fingerprint(model, clip, vae)
        path = output_folder() / AUTOSAVE / f"{self.name}-{fingerprint[:12]}.safetensors"
        identity = load_if_same(Identity.load, path, fingerprint)
        if identity:
            text = f"{identity.trigger} was trained from the same inputs before: {shown_path(path)}"
            logger.info("ID-EA: %s", text)
            show_on_node(text, node_id)
            return identity, training_sheet({}, identity.training["losses"])
        settings, view = self.settings, TrainingView(self.settings.config.steps, node_id)
        view.say("loading the checkpoint")
        start, watch = self.enhancer or NamesStart(), replace(self.watch, before_and_after=True)
        spec = PersonSpec(
            self.name, [self.photos], self.embeds, settings.config, settings.captions, self.names, start, watch
        )
        # The likeness loss keeps the engine: nothing may push the UNet out between an image and its gradients.
        engine = engine_of(self.face_model) if settings.config.likeness_weight else None
        with (
            checkpoint_meanwhile(prompt, node_id) as base,
            backbone_of(model, clip, vae, settings.precision, settings.gradient_checkpointing) as backbone,
        ):
            output = Output(path, fingerprint, settings.save_every, base=base, required=False)
            score = self._score(backbone)
            identity = train_person(backbone, spec, output, engine, score, view.show)
        losses = identity.training["losses"]
        kept = f", kept in {shown_path(path)}" if path.exists() else ""
        show_on_node(f"{identity.trigger} is trained in {len(losses)} steps{kept}", node_id)
        return identity, view.finish(losses)

    def fingerprint(self, model, clip, vae) -> str:
        """SHA-256 of all that the result depends on. The thumbnail is not part of it: the first run's stays."""
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

    def _score(self, backbone: LoadedModels) -> Score | None:
        """Measures face similarity, with face models that may push the UNet out of memory."""
        if self.face_model is None:
            return None

        def score(images: Tensor) -> float:
            with backbone.aside():
                return likeness_to(engine_of(self.face_model), self.embeds)(images)

        return score
