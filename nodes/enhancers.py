"""Nodes that make a person from a face alone: Load ID-Enhancer, Instant and Refined ID-EA Embedding."""

from __future__ import annotations

from comfy_api.v0_0_2 import io, ui

from ..idea_core.enhancers.config import RefineConfig
from ..idea_core.enhancers.pretrained import PretrainedEnhancer
from ..idea_core.enhancers.refine import Refiner
from ..idea_core.faces import IdEmbeds
from ..idea_core.identity.checks import require_name
from ..idea_core.text.captions import parse_prompts
from .comfy.backbone import backbone_of
from .comfy.checkpoint import checkpoint_meanwhile
from .comfy.face_models import ReloadedEngine
from .comfy.models import require_pair, require_vae
from .comfy.paths import ENHANCER_FILES, listed_files, listed_path, listed_state
from .comfy.progress import NodeProgress
from .common import SHOWS, EnhancerSocket, IdEmbedsSocket, described, output, require, require_embeds, schema
from .inputs import (
    advanced,
    base_model_inputs,
    configured,
    face_model_input,
    identity_output,
    name_input,
    prompts_input,
    widgets_of,
)
from .settings import TrainingSettings

_SHOWN = 2  # images of each candidate on the node


class LoadEnhancer(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="IDEA_LoadEnhancer",
            display_name="Load ID-Enhancer",
            description="Loads a pretrained ID-Enhancer. ID-Enhancer Train Across People trains one for a checkpoint.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=listed_files(ENHANCER_FILES),
                    tooltip="File of an ID-Enhancer, in models/idea/enhancers or output/idea/enhancers.",
                )
            ],
            outputs=[
                output(
                    EnhancerSocket,
                    "ID_ENHANCER",
                    "ID-Enhancer for Instant or Refined ID-EA Embedding, or for ID-Enhancer Train.",
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, file) -> bool:
        return True  # execute's error says what to do; the front end hides an error from here behind more clicks

    @classmethod
    def fingerprint_inputs(cls, file: str) -> str:
        return listed_state(ENHANCER_FILES, file)

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        return io.NodeOutput(PretrainedEnhancer.load(listed_path(ENHANCER_FILES, file)))


class InstantIdentity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="IDEA_InstantIdentity",
            display_name="Instant ID-EA Embedding",
            description="Makes a person from a face embedding, without training.",
            inputs=[
                EnhancerSocket.Input(
                    "enhancer", tooltip="ID-Enhancer from Load ID-Enhancer, trained for the checkpoint in use."
                ),
                IdEmbedsSocket.Input("id_embeds", tooltip="Face embeddings of the person, from ID Encode."),
                name_input(),
            ],
            outputs=[identity_output()],
        )

    @classmethod
    def execute(cls, enhancer: PretrainedEnhancer, id_embeds: IdEmbeds, name: str) -> io.NodeOutput:
        require(enhancer, PretrainedEnhancer, EnhancerSocket, "Load ID-Enhancer")
        require_embeds(id_embeds)
        return io.NodeOutput(enhancer.identity(require_name(name), id_embeds.mean))


class RefinedIdentity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="IDEA_RefinedIdentity",
            **SHOWS,
            display_name="Refined ID-EA Embedding",
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
                *advanced(*widgets_of(TrainingSettings, "precision")),
            ],
            outputs=[
                identity_output(),
                output(io.Image, "images", "Images of the best round."),
                output(io.String, "report", "Text: similarity at first, and after each correction that helped."),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, model, clip, vae, face_model, enhancer, id_embeds, name, prompts="", precision="auto", **values
    ) -> io.NodeOutput:
        require(enhancer, PretrainedEnhancer, EnhancerSocket, "Load ID-Enhancer")
        require_embeds(id_embeds)
        require_vae(vae, require_pair(model, clip, trainable=True))
        require_name(name)
        config = configured(RefineConfig, values, prompts=parse_prompts(prompts))
        node_id = cls.hidden.unique_id
        progress = NodeProgress(config.drawn, node_id, unit="images")
        with (
            checkpoint_meanwhile(cls.hidden.prompt, node_id) as base_of,
            backbone_of(model, clip, vae, precision) as backbone,
        ):
            refiner = Refiner(backbone, enhancer, ReloadedEngine(face_model), config)
            base = base_of()
            enhancer.warn_of_other_base("the ID-Enhancer", base["base_hash"], base["base_checkpoint"])
            better = refiner.refine(
                id_embeds.mean, lambda drawn, one: progress.show(drawn, None if one is None else one.images[:_SHOWN])
            )
            identity = refiner.identity(name, id_embeds.mean, better, **base)
        images = better[-1].images
        return io.NodeOutput(identity, images, described(identity.training), ui=ui.PreviewImage(images))
