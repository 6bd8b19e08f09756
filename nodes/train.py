"""ID-Enhancer Train."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import comfy.model_management
import comfy.utils
from comfy_api.v0_0_2 import io
from torch import Tensor

from ..idea_core import __version__
from ..idea_core.anchor import parse_names
from ..idea_core.config import TrainConfig
from ..idea_core.errors import IdeaError, TrainingError
from ..idea_core.faces import IdEmbeds
from ..idea_core.identity import Identity
from ..idea_core.identity_checks import require_name
from ..idea_core.trainer import Trainer, training_record
from .checkpoint import checkpoint_of
from .comfy_backbone import ComfyBackbone
from .comfy_models import require_pair, require_vae
from .face import CATEGORY
from .fingerprint import training_fingerprint
from .loss_curve import draw_losses
from .paths import AUTOSAVE, output_folder
from .sockets import IdEmbedsSocket, IdentitySocket, advanced, require

_DEFAULTS = TrainConfig()


class EnhancerTrain(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IDEA_EnhancerTrain",
            display_name="ID-Enhancer Train",
            category=CATEGORY,
            description="Trains a person for this checkpoint from a few photos. The result is on disk, in "
            "output/idea/autosave, before this node ends; the same inputs are never trained twice.",
            inputs=[
                io.Model.Input("model", tooltip="Stable Diffusion 1.x or 2.x; it is not changed."),
                io.Clip.Input("clip", tooltip="The CLIP of the same checkpoint; it is not changed."),
                io.Vae.Input("vae", tooltip="The VAE of the same checkpoint."),
                IdEmbedsSocket.Input("id_embeds", tooltip="The person's face, from ID Encode."),
                io.Image.Input("images", tooltip="The photos to train on: ID Encode's face crops."),
                io.String.Input(
                    "name",
                    default="alice",
                    tooltip="The person's name, of letters, digits, _ and -. Prompts say it in angle brackets: <alice>",
                ),
                _int("steps", 1, 10000, "More steps give more likeness; too many, and prompts are obeyed less."),
                _int("batch_size", 1, 64, "Photos per step. Lower it if memory runs out."),
                io.Int.Input(
                    "seed",
                    default=_DEFAULTS.seed,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=False,
                    tooltip="The same seed and inputs give the same person.",
                ),
                io.Int.Input(
                    "resolution",
                    default=512,
                    min=64,
                    max=1024,
                    step=64,
                    tooltip="Side in pixels to which the photos are cropped and scaled: 512, or 768 for SD 2.1 768-v.",
                ),
                _rate("token_rate", "Learning rate of the person's word."),
                _rate("adapter_rate", "Learning rate of ID-Enhancer and ID-Adapter."),
                _rate("kv_rate", "Learning rate of the cross attentions' keys and values; 0 leaves them alone."),
                _int(
                    "kv_rank",
                    0,
                    128,
                    "Rank of the change to keys and values. 0 trains whole matrices; lower kv_rate then.",
                ),
                advanced(
                    _rate(
                        "regularizer_weight",
                        "How strongly the person's word is held to its starting point. The published 0.0008 holds it "
                        "nearly still; 0 lets it go.",
                    )
                ),
                advanced(
                    io.String.Input(
                        "names",
                        default="",
                        multiline=True,
                        optional=True,
                        tooltip="Names of famous people, one a line, or a phrase such as 'human face', whose mean the "
                        "person starts from. Empty: the list that comes with the pack.",
                    )
                ),
            ],
            outputs=[
                IdentitySocket.Output(
                    "identity", display_name="IDENTITY", tooltip="For Save ID-EA Embedding and Apply ID-Adapter."
                ),
                io.Image.Output(
                    "loss_curve", display_name="loss_curve", tooltip="The loss of each step, and its mean."
                ),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model,
        clip,
        vae,
        id_embeds: IdEmbeds,
        images: Tensor,
        name: str,
        resolution: int,
        names: str = "",
        **settings,
    ) -> io.NodeOutput:
        require(id_embeds, IdEmbeds, IdEmbedsSocket, "ID Encode")
        require_pair(model, clip, trainable=True)
        require_vae(vae)
        job = TrainingJob(
            name=require_name(name),
            images=_square(images, resolution),
            arcface=id_embeds.mean,
            names=parse_names(names),
            config=TrainConfig(**settings),
        )
        identity = job.run(model, clip, vae, cls.hidden.prompt, cls.hidden.unique_id)
        return io.NodeOutput(identity, draw_losses(identity.training["losses"]))


@dataclass(frozen=True, eq=False)
class TrainingJob:
    """One person's training in ComfyUI, and where its result lies on disk.

    Attributes:
        images: (P, S, S, 3) in 0…1.
        arcface: (512,).
    """

    name: str
    images: Tensor
    arcface: Tensor
    names: tuple[str, ...]
    config: TrainConfig

    def run(self, model, clip, vae, prompt, node_id) -> Identity:
        """The trained identity; read from disk if the same inputs were trained before."""
        settings = {"version": __version__, "names": self.names, "name": self.name, **self.config.as_dict()}
        fingerprint = training_fingerprint(model, clip, vae, [self.images, self.arcface], settings)
        path = output_folder() / AUTOSAVE / f"{self.name}-{fingerprint[:12]}.safetensors"
        found = _load_if_same(path, fingerprint)
        if found:
            logging.info("ID-EA: %s was trained from the same inputs before: %s", found.trigger, path)
            return found
        pool = ThreadPoolExecutor(1)
        try:
            checkpoint = pool.submit(checkpoint_of, prompt, node_id)  # hashed while training runs
            trainer, losses = self._train(model, clip, vae)
            while not checkpoint.done():
                comfy.model_management.throw_exception_if_processing_interrupted()
                wait([checkpoint], timeout=0.1)
            base_checkpoint, base_hash = checkpoint.result()
        finally:
            pool.shutdown(wait=False)  # Cancel does not wait for the hash
        identity = trainer.identity(
            self.name,
            base_checkpoint=base_checkpoint,
            base_hash=base_hash,
            training=training_record(self.config, self.images, losses, fingerprint),
        )
        identity.save(path)
        return identity

    def _train(self, model, clip, vae) -> tuple[Trainer, tuple[float, ...]]:
        bar = comfy.utils.ProgressBar(self.config.steps)

        def on_step(step: int, _losses) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            bar.update_absolute(step)

        try:
            with ComfyBackbone(model, clip, vae) as backbone:
                trainer = Trainer(backbone, self.images, self.arcface, self.config, self.names)
                return trainer, trainer.run(on_step)
        except comfy.model_management.OOM_EXCEPTION as error:
            raise TrainingError(
                "memory for the training",
                f"out of memory at batch_size {self.config.batch_size} and {self.images.shape[1]} pixels",
                "Lower batch_size, then resolution.",
            ) from error


def _load_if_same(path: Path, fingerprint: str) -> Identity | None:
    """An earlier result of exactly these inputs; a damaged file counts as none."""
    try:
        identity = Identity.load(path)
    except (IdeaError, OSError):
        return None
    return identity if identity.training.get("fingerprint") == fingerprint else None


def _square(images: Tensor, size: int) -> Tensor:
    """Photos (P, H, W, C) → (P, size, size, 3): the middle square, scaled."""
    if images.ndim != 4 or 0 in images.shape:
        raise TrainingError("photos with pixels", f"shape {tuple(images.shape)}", "Connect ID Encode's face crops.")
    rgb = images[..., :3].movedim(-1, 1)
    return comfy.utils.common_upscale(rgb, size, size, "lanczos", "center").movedim(1, -1).contiguous()


def _int(name: str, least: int, most: int, tooltip: str) -> io.Int.Input:
    return io.Int.Input(name, default=getattr(_DEFAULTS, name), min=least, max=most, tooltip=tooltip)


def _rate(name: str, tooltip: str) -> io.Float.Input:
    return io.Float.Input(
        name, default=getattr(_DEFAULTS, name), min=0.0, max=1.0, step=1e-5, round=False, tooltip=tooltip
    )
