"""Inputs that several nodes have."""

from __future__ import annotations

import dataclasses
import math

from comfy_api.v0_0_2 import io

from ..idea_core.diffusion.backbone import PRECISION_CHOICES
from ..idea_core.errors import ConfigError

_SCHEMA = {field.name for field in dataclasses.fields(io.Schema)}
SHOWS = {name: True for name in ("has_intermediate_output",) if name in _SCHEMA}
"""Schema arguments of a node that shows something and is no output node: from the cache it is shown again. Versions of
ComfyUI that do not know them keep the results of the last prompt alone."""
OF_PICTURES = (
    "Size of the images in pixels, as the checkpoint needs: 512 for most, 768 for SD 2.1 768-v, 1024 for SDXL."
)


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


def seed_input(tooltip: str) -> io.Int.Input:
    """A seed that stays as it is from run to run."""
    return io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=False, tooltip=tooltip)


def int_input(name: str, default: int, least: int, most: int, tooltip: str, optional: bool = False) -> io.Int.Input:
    return io.Int.Input(name, default=default, min=least, max=most, tooltip=tooltip, optional=optional)


def float_input(name: str, default: float, least: float, most: float, tooltip: str) -> io.Float.Input:
    return io.Float.Input(name, default=default, min=least, max=most, step=0.05, tooltip=tooltip)


def name_input() -> io.String.Input:
    """A person's name."""
    return io.String.Input(
        "name",
        default="alice",
        tooltip="Name of the person: letters, digits, _ and -. Write it in prompts in angle brackets: <alice>",
    )


def resolution_input(tooltip: str) -> io.Int.Input:
    """Side of photos or pictures in pixels."""
    return io.Int.Input("resolution", default=512, min=64, max=1024, step=64, tooltip=tooltip)


def precision_input() -> io.Combo.Input:
    return io.Combo.Input(
        "precision",
        options=list(PRECISION_CHOICES),
        tooltip="UNet precision. auto: half precision on a GPU.",
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
