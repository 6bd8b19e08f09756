"""Blend Identities and Edit Identity."""

from __future__ import annotations

from comfy_api.v0_0_2 import io

from ..idea_core.identity.checks import require_name
from ..idea_core.identity.edit import blend, edit, shrink_kv
from ..idea_core.identity.identity import Identity
from .common import CATEGORY, SHOWS
from .sockets import IdentitySocket, require

_SOURCE = "ID-Enhancer Train or Load ID-EA Embedding"


class BlendIdentities(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IDEA_BlendIdentities",
            display_name="Blend Identities",
            category=CATEGORY,
            description="A new person between two who were trained on one base model. Chain it for more of them.",
            inputs=[
                IdentitySocket.Input("identity_a", tooltip="One person."),
                IdentitySocket.Input("identity_b", tooltip="The other person, of the same base model."),
                io.Float.Input(
                    "weight",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How much of identity_b is in the new person: 0 is all a, 1 is all b.",
                ),
                io.String.Input(
                    "name",
                    default="blend",
                    tooltip="The new person's name; prompts say it in angle brackets, such as <blend>.",
                ),
            ],
            outputs=[
                IdentitySocket.Output(
                    "identity", display_name="IDENTITY", tooltip="For Apply ID-Adapter or Save ID-EA Embedding."
                ),
            ],
        )

    @classmethod
    def execute(cls, identity_a: Identity, identity_b: Identity, weight: float, name: str) -> io.NodeOutput:
        for identity in (identity_a, identity_b):
            require(identity, Identity, IdentitySocket, _SOURCE)
        return io.NodeOutput(blend([identity_a, identity_b], [1 - weight, weight], require_name(name)))


class EditIdentity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IDEA_EditIdentity",
            **SHOWS,
            display_name="Edit Identity",
            category=CATEGORY,
            description="Renames a person, leaves out what others need not know, or makes the file smaller.",
            inputs=[
                IdentitySocket.Input("identity", tooltip="A person; the input itself is not changed."),
                io.String.Input("name", default="", tooltip="Another name; empty keeps the name."),
                io.Boolean.Input(
                    "keep_face",
                    default=True,
                    tooltip="Keep the face embedding. Others can tell by it whether a photo shows this person; "
                    "pictures do not need it.",
                ),
                io.Boolean.Input("keep_training", default=True, tooltip="Keep the record of settings and losses."),
                io.Boolean.Input(
                    "keep_thumbnail", default=True, optional=True, tooltip="Keep the small picture in the file."
                ),
                io.Int.Input(
                    "kv_rank",
                    default=0,
                    min=0,
                    max=128,
                    tooltip="At most this rank of the change to keys and values: a smaller file, with less likeness. "
                    "0 keeps it.",
                ),
            ],
            outputs=[
                IdentitySocket.Output(
                    "edited", display_name="IDENTITY", tooltip="For Apply ID-Adapter or Save ID-EA Embedding."
                ),
                io.String.Output(
                    "report",
                    display_name="report",
                    tooltip="The size in megabytes, and how much of the K/V change a lower rank has lost.",
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
        size = sum(tensor.numel() * tensor.element_size() for tensor in edited.tensors().values())
        report = f"{edited.trigger}: {size / 1e6:.1f} MB, {100 * lost:.1f} % of the K/V change lost"
        return io.NodeOutput(edited, report, ui={"text": [report]})
