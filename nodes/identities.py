"""Nodes of a person's file: save, load and show it."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from comfy_api.v0_0_2 import io, ui
from PIL import Image
from torch import Tensor

from ..idea_core.faces import IdEmbeds
from ..idea_core.identity.describe import describe, in_lines, last_likeness, megabytes
from ..idea_core.identity.identity import Identity
from ..idea_core.identity.place import free_place, same_person
from ..idea_core.identity.thumbnail import decode_thumbnail, encode_thumbnail
from .comfy.images import require_images, to_image, to_uint8
from .comfy.notices import said_saved
from .comfy.paths import IDENTITIES, identity_files, listed_path, listed_state, saved_path
from .common import SHOWS, IdEmbedsSocket, IdentitySocket, output, require, schema
from .inputs import advanced, keep_face_input


def _picture(identity: Identity) -> Tensor:
    """The thumbnail as an IMAGE (1, H, W, 3)."""
    return to_image([np.asarray(decode_thumbnail(identity.thumbnail))])


class SaveIdentity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="IDEA_SaveIdentity",
            display_name="Save ID-EA Embedding",
            description="Saves a person to output/idea as one .safetensors file. "
            "In models/embeddings or models/loras, ComfyUI's own nodes can read parts of the file.",
            inputs=[
                IdentitySocket.Input(
                    "identity", tooltip="Person to save: trained, instant, refined, blended or edited."
                ),
                io.String.Input(
                    "filename",
                    default="",
                    placeholder="the person's name",
                    tooltip="File name in output/idea; subfolders are allowed. Empty: the person's name. A file of the "
                    "same person is replaced. If the file holds another person, the new one gets a number.",
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="Thumbnail for the file, stored small. Without it, the file keeps the last preview of the "
                    "training, if there is one.",
                ),
                *advanced(keep_face_input(optional=True)),
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
            thumbnail = encode_thumbnail(Image.fromarray(to_uint8(image[0])))
            identity = dataclasses.replace(identity, thumbnail=thumbnail)
        wanted = saved_path(filename.strip() or identity.name)
        path = identity.save(free_place(wanted, identity, Identity.load, same_person))
        text = said_saved(identity.trigger, path, wanted, "another person")
        return io.NodeOutput(ui={"text": [text]})


class LoadIdentity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="IDEA_LoadIdentity",
            **SHOWS,
            display_name="Load ID-EA Embedding",
            description="Loads a saved person from models/idea or output/idea.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=identity_files(),
                    tooltip="File of a person, in models/idea or output/idea. Subfolders are included.",
                )
            ],
            outputs=[
                output(IdentitySocket, "IDENTITY", "Person for Apply ID-Adapter, Blend Identities and Edit Identity."),
                output(
                    IdEmbedsSocket,
                    "ID_EMBEDS",
                    "Face embedding in the file, for ID Similarity, without a photo. Not in files without keep_face.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, file) -> bool:
        return True  # execute's error says what to do; the front end hides an error from here behind more clicks

    @classmethod
    def fingerprint_inputs(cls, file: str) -> str:
        return listed_state(IDENTITIES, file)

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        identity = Identity.load(listed_path(IDENTITIES, file))
        shown = ui.PreviewImage(_picture(identity), cls=cls) if identity.thumbnail else None
        face = None if identity.id_embeds is None else IdEmbeds.of_mean(identity.id_embeds)
        return io.NodeOutput(identity, face, ui=shown)


class IdentityInfo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="IDEA_IdentityInfo",
            display_name="ID-EA Info",
            description="Shows what a person's file holds: thumbnail, base model, size, training, face similarity.",
            inputs=[
                IdentitySocket.Input(
                    "identity", tooltip="Person to show, from Load ID-EA Embedding or ID-Enhancer Train."
                )
            ],
            outputs=[
                output(io.Image, "thumbnail", "Thumbnail in the file; black if there is none."),
                output(io.String, "report", "All entries as text."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, identity: Identity) -> io.NodeOutput:
        require(identity, Identity, IdentitySocket, "Load ID-EA Embedding")
        entries, likeness = describe(identity), last_likeness(identity.training)
        if likeness is not None:
            entries["likeness"] = likeness
        text = in_lines({**entries, "fits": identity.base.title, "megabytes": round(megabytes(identity), 1)})
        if not identity.thumbnail:
            return io.NodeOutput(torch.zeros(1, 64, 64, 3), text, ui={"text": [text]})
        image = _picture(identity)
        return io.NodeOutput(image, text, ui={**ui.PreviewImage(image, cls=cls).as_dict(), "text": [text]})
