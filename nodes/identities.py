"""Nodes of a person's file: save, load and show it, blend two people, edit one."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import torch
from comfy_api.v0_0_2 import io, ui
from PIL import Image
from torch import Tensor

from ..idea_core.identity.checks import require_name
from ..idea_core.identity.describe import describe, in_lines, last_likeness
from ..idea_core.identity.edit import blend, edit, shrink_kv
from ..idea_core.identity.identity import Identity
from ..idea_core.identity.thumbnail import decode_thumbnail, encode_thumbnail
from .comfy.images import require_images, to_image, to_uint8
from .comfy.paths import IDENTITIES, file_state, identity_files, known_file, listed_path, saved_path
from .common import SHOWS, IdentitySocket, output, require, schema
from .inputs import advanced, identity_output, weight_input

logger = logging.getLogger(__name__)

_SOURCE = "ID-Enhancer Train or Load ID-EA Embedding"


def _keep_face(optional: bool = False) -> io.Boolean.Input:
    tooltip = (
        "Face embedding in the file. Others can use it to recognise this person in photos. "
        "Image generation does not need it."
    )
    return io.Boolean.Input("keep_face", default=True, optional=optional, tooltip=tooltip)


def _megabytes(identity: Identity) -> float:
    return sum(tensor.numel() * tensor.element_size() for tensor in identity.tensors().values()) / 1e6


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
                    default="alice",
                    tooltip="File name in output/idea; subfolders are allowed. A file with the same name is replaced.",
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="Thumbnail for the file, stored small. Without it, the file keeps the last preview of the "
                    "training, if there is one.",
                ),
                *advanced(_keep_face(optional=True)),
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
        path = identity.save(saved_path(filename))
        logger.info("ID-EA: saved %s to %s", identity.trigger, path)
        return io.NodeOutput(ui={"text": [f"{identity.trigger} → {path}"]})


class LoadIdentity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="IDEA_LoadIdentity",
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
                output(IdentitySocket, "IDENTITY", "Person for Apply ID-Adapter, Blend Identities and Edit Identity.")
            ],
        )

    @classmethod
    def validate_inputs(cls, file) -> bool | str:
        return known_file(IDENTITIES, file)

    @classmethod
    def fingerprint_inputs(cls, file: str) -> str:
        return file_state(listed_path(IDENTITIES, file))

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        return io.NodeOutput(Identity.load(listed_path(IDENTITIES, file)))


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
        text = in_lines({**entries, "fits": identity.base.title, "megabytes": round(_megabytes(identity), 1)})
        if not identity.thumbnail:
            return io.NodeOutput(torch.zeros(1, 64, 64, 3), text, ui={"text": [text]})
        image = to_image([np.asarray(decode_thumbnail(identity.thumbnail))])
        return io.NodeOutput(image, text, ui={**ui.PreviewImage(image, cls=cls).as_dict(), "text": [text]})


class BlendIdentities(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="IDEA_BlendIdentities",
            display_name="Blend Identities",
            description="Blends two people, trained on the same base model, into a new person.",
            inputs=[
                IdentitySocket.Input("identity_a", tooltip="First person (weight 0)."),
                IdentitySocket.Input("identity_b", tooltip="Second person (weight 1), trained on the same base model."),
                weight_input("Share of identity_b: 0 is identity_a alone, 1 is identity_b alone."),
                io.String.Input(
                    "name",
                    default="blend",
                    tooltip="Name of the new person. Write it in prompts in angle brackets: <blend>.",
                ),
            ],
            outputs=[identity_output()],
        )

    @classmethod
    def execute(cls, identity_a: Identity, identity_b: Identity, weight: float, name: str) -> io.NodeOutput:
        for identity in (identity_a, identity_b):
            require(identity, Identity, IdentitySocket, _SOURCE)
        return io.NodeOutput(blend([identity_a, identity_b], [1 - weight, weight], require_name(name)))


class EditIdentity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="IDEA_EditIdentity",
            **SHOWS,
            display_name="Edit Identity",
            description="Renames a person, removes private data, or makes the file smaller.",
            inputs=[
                IdentitySocket.Input("identity", tooltip="Person to edit. The input itself is not changed."),
                io.String.Input("name", default="", tooltip="New name. Empty keeps the present name."),
                _keep_face(),
                io.Boolean.Input(
                    "keep_training",
                    default=True,
                    tooltip="Training record in the file: settings, losses and face similarity.",
                ),
                io.Boolean.Input("keep_thumbnail", default=True, optional=True, tooltip="Thumbnail in the file."),
                io.Int.Input(
                    "kv_rank",
                    default=0,
                    min=0,
                    max=128,
                    tooltip="Highest rank of the change to keys and values. A lower rank makes the file smaller, with "
                    "less face similarity. 0 keeps the present rank.",
                ),
            ],
            outputs=[
                identity_output(),
                output(
                    io.String,
                    "report",
                    "Text: the size in megabytes, and the share of the K/V change that a lower rank removed.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        identity: Identity,
        name: str,
        keep_face: bool,
        keep_training: bool,
        kv_rank: int,
        keep_thumbnail: bool = True,
    ) -> io.NodeOutput:
        require(identity, Identity, IdentitySocket, _SOURCE)
        lost = 0.0
        if kv_rank:
            identity, lost = shrink_kv(identity, kv_rank)
        edited = edit(identity, require_name(name) if name else None, keep_face, keep_training, keep_thumbnail)
        report = f"{edited.trigger}: {_megabytes(edited):.1f} MB, {100 * lost:.1f} % of the K/V change lost"
        return io.NodeOutput(edited, report, ui={"text": [report]})
