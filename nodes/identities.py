"""Save ID-EA Embedding, Load ID-EA Embedding, and ID-EA Info."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import torch
from comfy_api.v0_0_2 import io, ui
from PIL import Image
from torch import Tensor

from ..idea_core.identity.describe import describe, in_lines, last_likeness
from ..idea_core.identity.identity import Identity
from ..idea_core.identity.thumbnail import decode_thumbnail, encode_thumbnail
from .comfy.images import require_images, to_image, to_uint8
from .comfy.paths import IDENTITIES, file_state, identity_files, identity_path, known_file, saved_path
from .common import CATEGORY
from .inputs import advanced
from .sockets import IdentitySocket, require


class SaveIdentity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IDEA_SaveIdentity",
            display_name="Save ID-EA Embedding",
            category=CATEGORY,
            description="Writes a person to output/idea as one .safetensors file. "
            "Stock nodes can read their parts of it from models/embeddings or models/loras.",
            inputs=[
                IdentitySocket.Input("identity", tooltip="A person: just trained, instant, blended or edited."),
                io.String.Input(
                    "filename",
                    default="alice",
                    tooltip="File name below output/idea, with subfolders if you like. "
                    "An existing file of that name is replaced.",
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="A picture to know the file by, stored small. Without it the file keeps the training's "
                    "last preview, if there was one.",
                ),
                advanced(
                    io.Boolean.Input(
                        "keep_face",
                        default=True,
                        optional=True,
                        tooltip="Keep the face embedding. Others can tell by it whether a photo shows this person; "
                        "pictures do not need it.",
                    )
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls, identity: Identity, filename: str, image: Tensor | None = None, keep_face: bool = True
    ) -> io.NodeOutput:
        require(identity, Identity, IdentitySocket, "ID-Enhancer Train")
        if not keep_face:
            identity = dataclasses.replace(identity, id_embeds=None)
        if image is not None:
            require_images(image)
            picture = Image.fromarray(to_uint8(image[0]))
            identity = dataclasses.replace(identity, thumbnail=encode_thumbnail(picture))
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
                IdentitySocket.Output(
                    "identity", display_name="IDENTITY", tooltip="For Apply ID-Adapter, blending and editing."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, file) -> bool | str:
        return known_file(IDENTITIES, file)

    @classmethod
    def fingerprint_inputs(cls, file: str) -> str:
        return file_state(identity_path(file))

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        return io.NodeOutput(Identity.load(identity_path(file)))


class IdentityInfo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IDEA_IdentityInfo",
            display_name="ID-EA Info",
            category=CATEGORY,
            description="What a person's file holds: its picture, base model, size, training and likeness.",
            inputs=[IdentitySocket.Input("identity", tooltip="From Load ID-EA Embedding or ID-Enhancer Train.")],
            outputs=[
                io.Image.Output(
                    "thumbnail", display_name="thumbnail", tooltip="The file's picture; black where it has none."
                ),
                io.String.Output("report", display_name="report", tooltip="All of it as text."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, identity: Identity) -> io.NodeOutput:
        require(identity, Identity, IdentitySocket, "Load ID-EA Embedding")
        said = describe(identity)
        likeness = last_likeness(identity.training)
        if likeness is not None:
            said["likeness"] = likeness
        size = sum(tensor.numel() * tensor.element_size() for tensor in identity.tensors().values())
        text = in_lines({**said, "fits": identity.base.title, "megabytes": round(size / 1e6, 1)})
        if not identity.thumbnail:
            return io.NodeOutput(torch.zeros(1, 64, 64, 3), text, ui={"text": [text]})
        picture = to_image([np.asarray(decode_thumbnail(identity.thumbnail))])
        return io.NodeOutput(picture, text, ui={**ui.PreviewImage(picture, cls=cls).as_dict(), "text": [text]})
