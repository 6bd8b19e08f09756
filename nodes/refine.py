"""Refined ID-EA Embedding: a person from a face alone, drawn, compared and corrected."""

from __future__ import annotations

from comfy_api.v0_0_2 import io

from ..idea_core.enhancers.pretrained import PretrainedEnhancer
from ..idea_core.enhancers.refine import RefineConfig, Refiner
from ..idea_core.faces import IdEmbeds
from ..idea_core.identity.checks import require_name
from ..idea_core.text.captions import parse_prompts
from .comfy.backbone import ComfyBackbone
from .comfy.checkpoint import checkpoint_meanwhile
from .comfy.face_models import ReloadedEngine
from .comfy.models import require_pair, require_vae
from .comfy.progress import NodeProgress
from .faces import CATEGORY, face_model_input
from .inputs import (
    OF_PICTURES,
    advanced,
    base_model_inputs,
    float_input,
    int_input,
    name_input,
    precision_input,
    prompts_input,
    require_finite,
    resolution_input,
    seed_input,
)
from .sockets import EnhancerSocket, IdEmbedsSocket, IdentitySocket, require
from .train import described

_DEFAULTS = RefineConfig()
_SHOWN = 2  # pictures of each look, on the node


class RefinedIdentity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IDEA_RefinedIdentity",
            display_name="Refined ID-EA Embedding",
            category=CATEGORY,
            description="A person from a face without training, closer than Instant ID-EA Embedding gets: the "
            "checkpoint draws the person, FACE_MODEL compares the faces, and the ID-Enhancer is shown a corrected one. "
            "Without gradients, and so in less memory than a training.",
            inputs=[
                *base_model_inputs(),
                face_model_input("Of ID Encode and of the ID-Enhancer's training; or another pack's."),
                EnhancerSocket.Input("enhancer", tooltip="From Load ID-Enhancer; made for this checkpoint."),
                IdEmbedsSocket.Input("id_embeds", tooltip="The person's face, from ID Encode."),
                name_input(),
                int_input(
                    "rounds",
                    _DEFAULTS.rounds,
                    1,
                    20,
                    "Corrections that are tried; one that lowers the likeness is dropped.",
                ),
                int_input("num_images", _DEFAULTS.num_images, 1, 64, "Drawn at first, and for each correction."),
                resolution_input(OF_PICTURES),
                seed_input("Of the pictures."),
                prompts_input("person"),
                advanced(
                    float_input(
                        "step_size",
                        _DEFAULTS.step_size,
                        0.05,
                        1.0,
                        "How much of the difference between drawn and wanted face the first correction takes back.",
                    )
                ),
                advanced(
                    int_input("sampling_steps", _DEFAULTS.sampling_steps, 1, 200, "Sampling steps of each picture.")
                ),
                advanced(float_input("guidance", _DEFAULTS.guidance, 0.0, 30.0, "Guidance (cfg) of the pictures.")),
                advanced(
                    int_input("sampling_batch_size", _DEFAULTS.sampling_batch_size, 1, 64, "Pictures sampled together.")
                ),
                advanced(precision_input()),
            ],
            outputs=[
                IdentitySocket.Output(
                    "identity", display_name="IDENTITY", tooltip="For Apply ID-Adapter or Save ID-EA Embedding."
                ),
                io.Image.Output("images", display_name="images", tooltip="The pictures of the best round."),
                io.String.Output(
                    "report", display_name="report", tooltip="Likeness at first, and after each correction that helped."
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
        face_model,
        enhancer: PretrainedEnhancer,
        id_embeds: IdEmbeds,
        name: str,
        rounds: int,
        num_images: int,
        resolution: int,
        seed: int,
        prompts: str = "",
        step_size: float = _DEFAULTS.step_size,
        sampling_steps: int = _DEFAULTS.sampling_steps,
        guidance: float = _DEFAULTS.guidance,
        sampling_batch_size: int = _DEFAULTS.sampling_batch_size,
        precision: str = "auto",
    ) -> io.NodeOutput:
        require(enhancer, PretrainedEnhancer, EnhancerSocket, "Load ID-Enhancer")
        require(id_embeds, IdEmbeds, IdEmbedsSocket, "ID Encode")
        require_vae(vae, require_pair(model, clip, trainable=True))
        require_finite(step_size=step_size, guidance=guidance)
        require_name(name)
        config = RefineConfig(
            rounds=rounds,
            num_images=num_images,
            step_size=step_size,
            prompts=parse_prompts(prompts),
            resolution=resolution,
            sampling_steps=sampling_steps,
            guidance=guidance,
            seed=seed,
            sampling_batch_size=sampling_batch_size,
        )
        node_id = cls.hidden.unique_id
        progress = NodeProgress(config.drawn, node_id, unit="images")
        with (
            checkpoint_meanwhile(cls.hidden.prompt, node_id) as hashed,
            ComfyBackbone(model, clip, vae, precision) as backbone,
        ):
            refiner = Refiner(backbone, enhancer, ReloadedEngine(face_model), config)
            base = hashed()
            enhancer.warn_of_other_base("the ID-Enhancer", base["base_hash"], base["base_checkpoint"])
            looks = refiner.refine(
                id_embeds.mean, lambda drawn, look: progress.show(drawn, look and look.images[:_SHOWN])
            )
            identity = refiner.identity(name, id_embeds.mean, looks, **base)
        return io.NodeOutput(identity, looks[-1].images, described(identity.training))
