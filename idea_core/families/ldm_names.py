"""Names of the cross attentions' key and value layers: LDM's, which identities use, and diffusers'.

LDM counts input and output blocks over all levels: each is one residual block (and its attention), or the one way down
after a level. Diffusers counts levels and layers apart.
"""

from __future__ import annotations

import re

_REST = r"(?P<rest>\.transformer_blocks\..*)"
_DIFFUSERS_NAME = re.compile(
    r"(?:(?P<side>down|up)_blocks\.(?P<level>\d+)|mid_block)\.attentions\.(?P<layer>\d+)" + _REST
)
_LDM_NAME = re.compile(r"diffusion_model\.(?:(?P<side>input|output)_blocks\.(?P<block>\d+)|middle_block)\.1" + _REST)
LAYERS_PER_BLOCK = 2  # of Stable Diffusion 1.x, 2.x and XL
KV_LAYERS = ("attn2.to_k", "attn2.to_v")
"""Ends of these layers' names, LDM's and diffusers'."""
KV_LAYER = r"diffusion_model(\.\w+)+\.attn2\.to_[kv]"
"""Pattern of their names in identity files."""


def to_ldm(name: str, layers_per_block: int = LAYERS_PER_BLOCK) -> str:
    """ "down_blocks.0.attentions.1.transformer_blocks…" → "diffusion_model.input_blocks.2.1.transformer_blocks…".

    Raises ValueError for a name that is no attention's.
    """
    match = _DIFFUSERS_NAME.fullmatch(name)
    if not match:
        raise ValueError(name)
    place = "middle_block"
    if match["side"]:
        block = int(match["level"]) * (layers_per_block + 1) + int(match["layer"])
        place = f"input_blocks.{block + 1}" if match["side"] == "down" else f"output_blocks.{block}"
    return f"diffusion_model.{place}.1{match['rest']}"


def to_diffusers(name: str, layers_per_block: int = LAYERS_PER_BLOCK) -> str:
    """The inverse of `to_ldm`."""
    match = _LDM_NAME.fullmatch(name)
    if not match:
        raise ValueError(name)
    if not match["side"]:
        return f"mid_block.attentions.0{match['rest']}"
    down = match["side"] == "input"
    level, layer = divmod(int(match["block"]) - down, layers_per_block + 1)
    return f"{'down' if down else 'up'}_blocks.{level}.attentions.{layer}{match['rest']}"
