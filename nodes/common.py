"""What all nodes share."""

from __future__ import annotations

import dataclasses
from typing import Any

from comfy_api.v0_0_2 import io

CATEGORY = "ID-EA"
_SCHEMA = {field.name for field in dataclasses.fields(io.Schema)}
SHOWS = {name: True for name in ("has_intermediate_output",) if name in _SCHEMA}
"""Schema arguments of a node that shows something and is no output node: from the cache it is shown again. Versions of
ComfyUI that do not know them keep the results of the last prompt alone."""


def described(training: dict[str, Any]) -> str:
    """A training's record in lines, its long lists left out."""
    values = {**training, **training.get("refine", {}), **training.get("report", {})}
    left_out = ("losses", "prompts", "refine", "report")
    return "\n".join(f"{key}: {value}" for key, value in values.items() if key not in left_out)
