"""Inputs that several nodes have, and widgets that are made of settings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from comfy_api.v0_0_2 import io

from ..idea_core.errors import ConfigError
from ..idea_core.faces import FaceSettings
from ..idea_core.settings import Setting, Settings, settings_of
from .comfy.images import first
from .common import FaceAnalysis, FaceModel, IdEmbedsSocket, IdentitySocket, InsightFace, output, require_embeds

ERROR, SKIP = "error", "skip"  # photos without a face
KEEP, LEAVE_OUT = "keep", "leave out"  # photos that look like another person
_UNSET = -1  # of optional numbers: widgets hold no None
_Some = TypeVar("_Some", bound=Settings)


def widgets_of(
    kind: type[Settings], *names: str, optional: bool = False, **changes: Mapping[str, Any] | None
) -> list[io.Input]:
    """A widget for each setting of a class, or for the named ones.

    Args:
        optional: whether the inputs may be left out.
        changes: setting → arguments that replace those of its widget; None: it has no widget.
    """
    settings = [(one, changes.get(name, {})) for name, one in settings_of(kind).items() if not names or name in names]
    return [_widget(one, {"optional": optional, **own}) for one, own in settings if own is not None]


def configured(kind: type[_Some], values: Mapping[str, Any], **others: Any) -> _Some:
    """Settings from the values of `widgets_of`; `others` are for fields without a widget."""
    optional = {name for name, one in settings_of(kind).items() if one.optional}
    values = {name: None if name in optional and value == _UNSET else value for name, value in values.items()}
    return kind.from_values(values, **others)


def _widget(setting: Setting, changes: Mapping[str, Any]) -> io.Input:
    arguments = {"id": setting.name, "default": setting.default, "tooltip": setting.help, **_range(setting), **changes}
    if setting.choices:
        widget = io.Combo.Input(options=list(setting.choices), **arguments)
    else:
        kinds = {int: io.Int, float: io.Float, bool: io.Boolean, str: io.String}
        widget = kinds[setting.kind].Input(**arguments)
    if arguments["default"] == _UNSET and setting.optional:
        widget.tooltip += f" {_UNSET}: unset."
    return advanced(widget)[0] if setting.advanced else widget


def _range(setting: Setting) -> dict[str, Any]:
    """Bounds and step of a number's widget."""
    if setting.choices or setting.kind not in (int, float):
        return {}
    step = setting.step or (1 if setting.kind is int else 0.05)
    lowest = setting.min if setting.above is None else setting.above + (step if step >= 0.01 else step / 100)
    highest = setting.max if setting.soft_max is None else setting.soft_max
    if setting.kind is int:
        ends = {"min": math.ceil((lowest or 0) / step) * step, "max": highest}
    else:
        ends = {"min": float(lowest or 0), "max": highest and float(highest), "round": None if step >= 0.01 else False}
    if setting.optional:
        ends |= {"min": setting.kind(_UNSET), "default": setting.kind(_UNSET)}
    return {**ends, "step": step, **({"control_after_generate": False} if setting.name == "seed" else {})}


def advanced(*widgets: io.Input) -> Sequence[io.Input]:
    """The same inputs, folded away by front ends that can. Not every ComfyUI has an argument for it."""
    for widget in widgets:
        widget.extra_dict["advanced"] = True
    return widgets


def base_model_inputs(more: str = "") -> list[io.Input]:
    """MODEL, CLIP and VAE that a training uses; `more` says which other MODELs fit."""
    return [
        io.Model.Input("model", tooltip=f"MODEL of Stable Diffusion 1.x, 2.x or XL. {more}It is not changed."),
        io.Clip.Input("clip", tooltip="CLIP of the same checkpoint. It is not changed."),
        io.Vae.Input("vae", tooltip="VAE of the same checkpoint."),
    ]


def name_input() -> io.String.Input:
    """A person's name."""
    return io.String.Input(
        "name",
        default="alice",
        tooltip="Name of the person: letters, digits, _ and -. Write it in prompts in angle brackets: <alice>",
    )


def prompts_input(subject: str) -> io.String.Input:
    """Prompts of the images that a node draws, with brackets for the `subject`."""
    tooltip = (
        f"Prompts of the images, one per line, with two curly brackets for the {subject}. Empty: 12 portrait prompts."
    )
    return io.String.Input(
        "prompts",
        default="",
        multiline=True,
        optional=True,
        placeholder="one prompt per line, {} for the " + subject + "; empty: 12 portrait prompts",
        tooltip=tooltip,
    )


def keep_face_input(optional: bool = False) -> io.Boolean.Input:
    """Whether a file keeps the face embedding."""
    tooltip = (
        "Face embedding in the file. Others can use it to recognise this person in photos. "
        "Image generation does not need it."
    )
    return io.Boolean.Input("keep_face", default=True, optional=optional, tooltip=tooltip)


def weight_input(tooltip: str) -> io.Float.Input:
    """Weight of the second of two people."""
    return io.Float.Input("weight", default=0.5, min=0.0, max=1.0, step=0.05, tooltip=tooltip)


def identity_output() -> io.Output:
    return output(IdentitySocket, "IDENTITY", "Person for Apply ID-Adapter or Save ID-EA Embedding.")


def face_model_input(
    tooltip: str = "From Load Face Model, or another pack's FACEANALYSIS or INSIGHTFACE.", optional: bool = False
) -> io.Input:
    return io.MultiType.Input("face_model", [FaceModel, FaceAnalysis, InsightFace], tooltip=tooltip, optional=optional)


def image_inputs(tooltip: str, more: str) -> list[io.Input]:
    """Images of any sizes. With the second input users need no batch, which ComfyUI would crop to one size."""
    return [io.Image.Input("images", tooltip=tooltip), io.Image.Input("more_images", optional=True, tooltip=more)]


def face_choice_inputs() -> list[io.Input]:
    """Inputs that choose the face of a photo; `face_settings` reads them."""
    return [
        *widgets_of(FaceSettings, "face", "number", optional=True),
        IdEmbedsSocket.Input(
            "nearest_to", optional=True, tooltip="Face embeddings of the person to look for. Only for face = nearest."
        ),
        *widgets_of(FaceSettings, "min_score", optional=True),
    ]


def face_settings(nearest_to=None, no_face=ERROR, outliers=KEEP, **values: Any) -> FaceSettings:
    """The settings from the inputs that choose faces and photos, all of them lists."""
    person = first(nearest_to)
    if person is not None:
        require_embeds(person)
    chosen = {name: first(value) for name, value in values.items()}
    skip, leave_out = first(no_face) == SKIP, first(outliers) == LEAVE_OUT
    return FaceSettings(**chosen, nearest_to=person, skip=skip, leave_out_outliers=leave_out)


def require_finite(**values: float) -> None:
    """Raise `ConfigError` for NaN and infinity: scripts may send NaN, which ComfyUI's bounds let through."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise ConfigError(f"a finite {name}", str(value), f"Change {name}.")
