"""The cross attentions' key and value layers of a diffusers UNet."""

from __future__ import annotations

from typing import cast

from torch import nn

from ...families.ldm_names import KV_LAYERS, to_ldm


def cross_attention_layers(unet) -> dict[str, nn.Linear]:
    """LDM name → module, for each `to_k` and `to_v` of a `UNet2DConditionModel`."""
    per_block = unet.config.layers_per_block
    named = {n: m for n, m in unet.named_modules() if n.endswith(KV_LAYERS)}
    return {to_ldm(name, per_block): cast(nn.Linear, module) for name, module in named.items()}
