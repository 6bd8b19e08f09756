"""Load ID-Enhancer and Instant ID-EA Embedding: a person from a face alone."""

from __future__ import annotations

from comfy_api.v0_0_2 import io

from ..idea_core.enhancers.pretrained import PretrainedEnhancer
from ..idea_core.faces import IdEmbeds
from ..idea_core.identity.checks import require_name
from .comfy.paths import ENHANCER_FILES, enhancer_files, enhancer_path, file_state, known_file
from .common import CATEGORY
from .inputs import name_input
from .sockets import EnhancerSocket, IdEmbedsSocket, IdentitySocket, require


class LoadEnhancer(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IDEA_LoadEnhancer",
            display_name="Load ID-Enhancer",
            category=CATEGORY,
            description="Loads a pretrained ID-Enhancer. ID-Enhancer Train Across People trains one for a checkpoint.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=enhancer_files(),
                    tooltip="File of an ID-Enhancer, in models/idea/enhancers or output/idea/enhancers.",
                ),
            ],
            outputs=[
                EnhancerSocket.Output(
                    "enhancer",
                    display_name="ID_ENHANCER",
                    tooltip="ID-Enhancer for Instant or Refined ID-EA Embedding, or for ID-Enhancer Train.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, file) -> bool | str:
        return known_file(ENHANCER_FILES, file)

    @classmethod
    def fingerprint_inputs(cls, file: str) -> str:
        return file_state(enhancer_path(file))

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        return io.NodeOutput(PretrainedEnhancer.load(enhancer_path(file)))


class InstantIdentity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IDEA_InstantIdentity",
            display_name="Instant ID-EA Embedding",
            category=CATEGORY,
            description="Makes a person from a face embedding, without training.",
            inputs=[
                EnhancerSocket.Input(
                    "enhancer", tooltip="ID-Enhancer from Load ID-Enhancer, trained for the checkpoint in use."
                ),
                IdEmbedsSocket.Input("id_embeds", tooltip="Face embeddings of the person, from ID Encode."),
                name_input(),
            ],
            outputs=[
                IdentitySocket.Output(
                    "identity", display_name="IDENTITY", tooltip="Person for Apply ID-Adapter or Save ID-EA Embedding."
                ),
            ],
        )

    @classmethod
    def execute(cls, enhancer: PretrainedEnhancer, id_embeds: IdEmbeds, name: str) -> io.NodeOutput:
        require(enhancer, PretrainedEnhancer, EnhancerSocket, "Load ID-Enhancer")
        require(id_embeds, IdEmbeds, IdEmbedsSocket, "ID Encode")
        return io.NodeOutput(enhancer.identity(require_name(name), id_embeds.mean))
