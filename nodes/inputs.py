"""Inputs that several nodes have."""

from __future__ import annotations

import math

from comfy_api.v0_0_2 import io

from ..idea_core.errors import ConfigError


def advanced(widget: io.Input) -> io.Input:
    """The same input, folded away by front ends that can. Not every ComfyUI has an argument for it."""
    widget.extra_dict["advanced"] = True
    return widget


def base_model_inputs() -> list[io.Input]:
    """MODEL, CLIP and VAE that a training uses."""
    return [
        io.Model.Input("model", tooltip="Stable Diffusion 1.x, 2.x or XL; it is not changed."),
        io.Clip.Input("clip", tooltip="The CLIP of the same checkpoint; it is not changed."),
        io.Vae.Input("vae", tooltip="The VAE of the same checkpoint."),
    ]


def seed_input(tooltip: str) -> io.Int.Input:
    """A seed that stays as it is from run to run."""
    return io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=False, tooltip=tooltip)


def require_finite(**values: float) -> None:
    """Raise `ConfigError` for NaN and infinity: no bounds of ComfyUI's stop NaN, which scripts may send."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise ConfigError(f"a finite {name}", str(value), f"Change {name}.")
