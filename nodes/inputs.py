"""Inputs that several nodes have, and widgets that are made of settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

from comfy_api.v0_0_2 import io

from ..idea_core.errors import ConfigError
from ..idea_core.settings import Setting, Settings, settings_of

_UNSET = -1  # of optional numbers: widgets hold no None
_Some = TypeVar("_Some", bound=Settings)


def widgets_of(
    kind: type[Settings], *names: str, optional: bool = False, **changes: Mapping[str, Any] | None
) -> list[io.Input]:
    """A widget for each setting of a class, or for those named.

    Args:
        optional: whether the inputs may be left out.
        changes: setting → arguments of its input that are others here; None: it has no widget.
    """
    settings = [one for name, one in settings_of(kind).items() if name in (names or settings_of(kind))]
    chosen = [(one, changes.get(one.name, {})) for one in settings]
    return [_widget(one, {"optional": optional, **own}) for one, own in chosen if own is not None]


def configured(kind: type[_Some], values: Mapping[str, Any], **others: Any) -> _Some:
    """Settings of the values of `widgets_of`; `others` are for fields that have no widget."""
    optional = {name for name, one in settings_of(kind).items() if one.optional}
    given = {name: None if name in optional and value == _UNSET else value for name, value in values.items()}
    return kind.from_values(given, **others)


def _widget(setting: Setting, changes: Mapping[str, Any]) -> io.Input:
    given = {"id": setting.name, "default": setting.default, "tooltip": setting.help, **_range(setting), **changes}
    if setting.choices:
        widget = io.Combo.Input(options=list(setting.choices), **given)
    else:
        kinds = {int: io.Int, float: io.Float, bool: io.Boolean, str: io.String}
        widget = kinds[setting.kind].Input(**given)
    if given.get("default") == _UNSET and setting.optional:
        widget.tooltip += f" {_UNSET}: unset."
    return advanced(widget) if setting.advanced else widget


def _range(setting: Setting) -> dict[str, Any]:
    """Ends and steps of a number's widget."""
    if setting.choices or setting.kind not in (int, float):
        return {}
    step = setting.step or (1 if setting.kind is int else 0.05)
    least = setting.min if setting.above is None else setting.above + (step if step >= 0.01 else step / 100)
    most = setting.max if setting.soft_max is None else setting.soft_max
    if setting.kind is int:
        ends = {"min": math.ceil((least or 0) / step) * step, "max": most}
    else:
        ends = {"min": float(least or 0), "max": float(most), "round": None if step >= 0.01 else False}
    if setting.optional:
        ends |= {"min": setting.kind(_UNSET), "default": setting.kind(_UNSET)}
    return {**ends, "step": step, **({"control_after_generate": False} if setting.name == "seed" else {})}


def advanced(widget: io.Input) -> io.Input:
    """The same input, folded away by front ends that can. Not every ComfyUI has an argument for it."""
    widget.extra_dict["advanced"] = True
    return widget


def base_model_inputs() -> list[io.Input]:
    """MODEL, CLIP and VAE that a training uses."""
    return [
        io.Model.Input("model", tooltip="MODEL of Stable Diffusion 1.x, 2.x or XL. It is not changed."),
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


def prompts_input(whose: str) -> io.String.Input:
    """Prompts of the pictures that a node draws; `whose` place the brackets keep."""
    tooltip = (
        f"Prompts of the images, one per line, with two curly brackets for the {whose}. Empty: 12 portrait prompts."
    )
    return io.String.Input("prompts", default="", multiline=True, optional=True, tooltip=tooltip)


def require_finite(**values: float) -> None:
    """Raise `ConfigError` for NaN and infinity: no bounds of ComfyUI's stop NaN, which scripts may send."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise ConfigError(f"a finite {name}", str(value), f"Change {name}.")
