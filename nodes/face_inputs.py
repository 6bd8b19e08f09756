"""Inputs of nodes that look for faces."""

from __future__ import annotations

from typing import Any

from comfy_api.v0_0_2 import io

from ..idea_core.faces import FaceSettings
from .comfy.images import first
from .inputs import widgets_of
from .sockets import FaceAnalysis, FaceModel, IdEmbedsSocket, InsightFace, require_embeds


def face_model_input(
    tooltip: str = "From Load Face Model, or another pack's FACEANALYSIS or INSIGHTFACE.", optional: bool = False
) -> io.Input:
    return io.MultiType.Input("face_model", [FaceModel, FaceAnalysis, InsightFace], tooltip=tooltip, optional=optional)


def more_images_input(tooltip: str) -> io.Input:
    """So that two pictures need no node that makes a batch, where ComfyUI would crop one to the other's size."""
    return io.Image.Input("more_images", optional=True, tooltip=tooltip)


def face_choice_inputs() -> list[io.Input]:
    """Inputs that say which face of a photo is meant; read by `face_settings`."""
    return [
        *widgets_of(FaceSettings, "face", "number", optional=True),
        IdEmbedsSocket.Input(
            "nearest_to", optional=True, tooltip="Face embeddings of the person to look for. Only for face = nearest."
        ),
        *widgets_of(FaceSettings, "min_score", optional=True),
    ]


def aligned_input() -> io.Input:
    (widget,) = widgets_of(FaceSettings, "aligned", optional=True)
    return widget


def face_settings(nearest_to=None, skip: bool = False, leave_out_outliers: bool = False, **values: Any) -> FaceSettings:
    """The settings that the inputs of `face_choice_inputs` and `aligned_input` say, which come as lists."""
    person = first(nearest_to)
    if person is not None:
        require_embeds(person)
    chosen = {name: first(value) for name, value in values.items()}
    return FaceSettings(**chosen, nearest_to=person, skip=skip, leave_out_outliers=leave_out_outliers)
