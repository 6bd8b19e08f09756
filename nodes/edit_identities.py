"""Nodes that make people of people: Blend Identities and Edit Identity."""

from __future__ import annotations

from comfy_api.v0_0_2 import io

from ..idea_core.identity.checks import require_name
from ..idea_core.identity.describe import megabytes
from ..idea_core.identity.edit import blend, edit, shrink_kv
from ..idea_core.identity.identity import Identity
from .common import SHOWS, IdentitySocket, output, require, schema
from .inputs import identity_output, keep_face_input, weight_input

_SOURCE = "ID-Enhancer Train or Load ID-EA Embedding"


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
                keep_face_input(),
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
        report = f"{edited.trigger}: {megabytes(edited):.1f} MB, {100 * lost:.1f} % of the K/V change lost"
        return io.NodeOutput(edited, report, ui={"text": [report]})
