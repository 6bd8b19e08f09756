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

logger = logging.getLogger(__name__)


class SaveIdentity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IDEA_SaveIdentity",
            display_name="Save ID-EA Embedding",
            category=CATEGORY,
            description="Saves a person to output/idea as one .safetensors file. "
            "In models/embeddings or models/loras, ComfyUI's own nodes can read parts of the file.",
            inputs=[
                IdentitySocket.Input(
                    "identity", tooltip="Person to save: trained, instant, refined, blended or edited."
                ),
                io.String.Input(
                    "filename",
                    default="alice",
                    tooltip="File name in output/idea; subfolders are allowed. A file with the same name is replaced.",
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="Thumbnail for the file, stored small. Without it, the file keeps the last preview of the "
                    "training, if there is one.",
                ),
                advanced(
                    io.Boolean.Input(
                        "keep_face",
                        default=True,
                        optional=True,
                        tooltip="Face embedding in the file. Others can use it to recognise this person in photos. "
                        "Image generation does not need it.",
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
        logger.info("ID-EA: saved %s to %s", identity.trigger, path)
        return io.NodeOutput(ui={"text": [f"{identity.trigger} → {path}"]})


class LoadIdentity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IDEA_LoadIdentity",
            display_name="Load ID-EA Embedding",
            category=CATEGORY,
            description="Loads a saved person from models/idea or output/idea.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=identity_files(),
                    tooltip="File of a person, in models/idea or output/idea. Subfolders are included.",
                ),
            ],
            outputs=[
                IdentitySocket.Output(
                    "identity",
                    display_name="IDENTITY",
                    tooltip="Person for Apply ID-Adapter, Blend Identities and Edit Identity.",
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
            description="Shows what a person's file holds: thumbnail, base model, size, training, face similarity.",
            inputs=[
                IdentitySocket.Input(
                    "identity", tooltip="Person to show, from Load ID-EA Embedding or ID-Enhancer Train."
                )
            ],
            outputs=[
                io.Image.Output(
                    "thumbnail", display_name="thumbnail", tooltip="Thumbnail in the file; black if there is none."
                ),
                io.String.Output("report", display_name="report", tooltip="All entries as text."),
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
