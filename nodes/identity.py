"""Save ID-EA Embedding and Load ID-EA Embedding."""

from __future__ import annotations

import logging

from comfy_api.v0_0_2 import io

from ..idea_core.identity import Identity
from .face import CATEGORY
from .paths import file_state, identity_files, identity_path, saved_path
from .sockets import IdentitySocket, require


class SaveIdentity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IDEA_SaveIdentity",
            display_name="Save ID-EA Embedding",
            category=CATEGORY,
            description="Writes a person to output/idea as one .safetensors file. "
            "Stock embedding: prompts and LoRA loaders can read their parts of it too.",
            inputs=[
                IdentitySocket.Input("identity", tooltip="From ID-Enhancer Train."),
                io.String.Input(
                    "filename",
                    default="alice",
                    tooltip="File name below output/idea, with subfolders if you like. "
                    "An existing file of that name is replaced.",
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, identity: Identity, filename: str) -> io.NodeOutput:
        require(identity, Identity, IdentitySocket, "ID-Enhancer Train")
        path = identity.save(saved_path(filename))
        logging.info("ID-EA: saved %s to %s", identity.trigger, path)
        return io.NodeOutput(ui={"text": [f"{identity.trigger} → {path}"]})


class LoadIdentity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IDEA_LoadIdentity",
            display_name="Load ID-EA Embedding",
            category=CATEGORY,
            description="Reads a person's file from models/idea or output/idea.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=identity_files(),
                    tooltip="A file in models/idea or output/idea, subfolders included.",
                ),
            ],
            outputs=[
                IdentitySocket.Output("identity", display_name="IDENTITY", tooltip="For Apply ID-Adapter."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str) -> str:
        return file_state(identity_path(file))

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        return io.NodeOutput(Identity.load(identity_path(file)))
