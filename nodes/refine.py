"""Refined ID-EA Embedding: a person from a face alone, drawn, compared and corrected."""

from __future__ import annotations

from comfy_api.v0_0_2 import io

from ..idea_core.enhancers.config import RefineConfig
from ..idea_core.enhancers.pretrained import PretrainedEnhancer
from ..idea_core.enhancers.refine import Refiner
from ..idea_core.faces import IdEmbeds
from ..idea_core.identity.checks import require_name
from ..idea_core.text.captions import parse_prompts
from .comfy.backbone import ComfyBackbone
from .comfy.checkpoint import checkpoint_meanwhile
from .comfy.face_models import ReloadedEngine
from .comfy.models import require_pair, require_vae
from .comfy.progress import NodeProgress
from .common import CATEGORY, described
from .face_inputs import face_model_input
from .inputs import advanced, base_model_inputs, configured, name_input, prompts_input, widgets_of
from .settings import TrainingSettings
from .sockets import EnhancerSocket, IdEmbedsSocket, IdentitySocket, require

_SHOWN = 2  # pictures of each look, on the node


class RefinedIdentity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IDEA_RefinedIdentity",
            display_name="Refined ID-EA Embedding",
            category=CATEGORY,
            description="Makes a person from a face without training, with better likeness than Instant ID-EA "
            "Embedding. The checkpoint draws the person, FACE_MODEL compares the faces, and the input of the "
            "ID-Enhancer is corrected. It needs less memory than a training.",
            inputs=[
                *base_model_inputs(),
                face_model_input("Face models of ID Encode and of the ID-Enhancer's training, or another pack's."),
                EnhancerSocket.Input(
                    "enhancer", tooltip="ID-Enhancer from Load ID-Enhancer, trained for this checkpoint."
                ),
                IdEmbedsSocket.Input("id_embeds", tooltip="Face embeddings of the person, from ID Encode."),
                name_input(),
                *widgets_of(RefineConfig, "rounds", "num_images", "resolution", "seed"),
                prompts_input("person"),
                *widgets_of(RefineConfig, "step_size", "sampling_steps", "guidance", "sampling_batch_size"),
                *(advanced(widget) for widget in widgets_of(TrainingSettings, "precision")),
            ],
            outputs=[
                IdentitySocket.Output(
                    "identity", display_name="IDENTITY", tooltip="Person for Apply ID-Adapter or Save ID-EA Embedding."
                ),
                io.Image.Output("images", display_name="images", tooltip="Images of the best round."),
                io.String.Output(
                    "report",
                    display_name="report",
                    tooltip="Text: similarity at first, and after each correction that helped.",
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
        prompts: str = "",
        precision: str = "auto",
        **values,
    ) -> io.NodeOutput:
        require(enhancer, PretrainedEnhancer, EnhancerSocket, "Load ID-Enhancer")
        require(id_embeds, IdEmbeds, IdEmbedsSocket, "ID Encode")
        require_vae(vae, require_pair(model, clip, trainable=True))
        require_name(name)
        config = configured(RefineConfig, values, prompts=parse_prompts(prompts))
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
