"""A small UNet as Stable Diffusion 1.x's; the result computes the same.

Each channel is repeated k times in a row, as in Net2Wider (arXiv 1511.05641, section 3.1). Weights that read repeated
channels are divided by k. Stable Diffusion's layers in excess are made the identity (section 3.2).
"""

from __future__ import annotations

import re

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

GROUPS, HEADS, LATENT_CHANNELS = 32, 8, 4
SAME = ("conv_in", "conv_out", "conv_norm_out", "time_embedding")
LAYERS = {  # of the wide UNet, and those of the small one that they do the work of
    "down_blocks.0.resnets.0": "down_blocks.0.resnets.0",
    "down_blocks.0.downsamplers.0": "down_blocks.0.downsamplers.0",
    "down_blocks.1.resnets.0": "down_blocks.1.resnets.0",
    "down_blocks.1.attentions.0": "down_blocks.1.attentions.0",
    "down_blocks.1.downsamplers.0": "down_blocks.1.downsamplers.0",
    "down_blocks.2.resnets.0": "down_blocks.2.resnets.0",
    "down_blocks.2.attentions.0": "down_blocks.2.attentions.0",
    "up_blocks.1.resnets.1": "up_blocks.0.resnets.0",
    "up_blocks.1.attentions.1": "up_blocks.0.attentions.0",
    "up_blocks.1.resnets.2": "up_blocks.0.resnets.1",
    "up_blocks.1.attentions.2": "up_blocks.0.attentions.1",
    "up_blocks.1.upsamplers.0": "up_blocks.0.upsamplers.0",
    "up_blocks.2.resnets.0": "up_blocks.1.resnets.0",
    "up_blocks.2.attentions.0": "up_blocks.1.attentions.0",
    "up_blocks.2.resnets.2": "up_blocks.1.resnets.1",
    "up_blocks.2.attentions.2": "up_blocks.1.attentions.1",
    "up_blocks.2.upsamplers.0": "up_blocks.1.upsamplers.0",
    "up_blocks.3.resnets.0": "up_blocks.2.resnets.0",
    "up_blocks.3.resnets.2": "up_blocks.2.resnets.1",
}
KEPT_HALF = {  # identities of up blocks, and which half of their input they pass on: hidden states or skip
    "up_blocks.1.resnets.0": 1,
    "up_blocks.2.resnets.1": 0,
    "up_blocks.3.resnets.1": 0,
}


def wide_unet(small: UNet2DConditionModel, factor: int = 5, text_factor: int = 4) -> UNet2DConditionModel:
    """An untrained UNet of Stable Diffusion 1.x's layout; by default of its size too."""
    widths = [level * factor for level in small.config.block_out_channels]
    return UNet2DConditionModel(
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=[*widths, widths[-1]],
        cross_attention_dim=small.config.cross_attention_dim * text_factor,
        attention_head_dim=HEADS,  # diffusers' name for the number of heads
        norm_num_groups=GROUPS,
    )


@torch.no_grad()
def widen_unet(small: UNet2DConditionModel, wide: UNet2DConditionModel) -> None:
    """Fill a wide UNet with weights that compute what the small one does, given each text channel repeated in a row."""
    ours, theirs = small.state_dict(), wide.state_dict()
    for key, target in theirs.items():
        layer = re.match(r"(up|down)_blocks\.\d+\.\w+\.\d+", key)
        prefix = layer[0] if layer else key.split(".")[0]
        if prefix in LAYERS or prefix in SAME:
            source = ours[LAYERS.get(prefix, prefix) + key.removeprefix(prefix)]
            target.copy_(
                _timestep(source, target) if "time_embedding.linear_1.weight" in key else _repeat(source, target)
            )
            if key.endswith("to_q.weight"):  # k times the product over √k times the divisor
                target.div_((target.shape[0] / source.shape[0]) ** 0.5)
        else:
            target.zero_()
    for prefix, half in KEPT_HALF.items():
        weight = theirs[f"{prefix}.conv_shortcut.weight"]
        width = weight.shape[0]
        begin = weight.shape[1] - width if half else 0
        weight[:, begin : begin + width, 0, 0] = torch.eye(width)


def _repeat(source: Tensor, target: Tensor) -> Tensor:
    """A weight for repeated channels, by the shapes of both."""
    if len(source.shape) == 1:
        return source.repeat_interleave(target.shape[0] // source.shape[0])
    out_factor, in_factor = (theirs // ours for theirs, ours in zip(target.shape[:2], source.shape[:2]))
    return source.repeat_interleave(out_factor, 0).repeat_interleave(in_factor, 1) / in_factor


def _timestep(source: Tensor, target: Tensor) -> Tensor:
    """The first weight after the sinusoids: cosines, then sines, of which the wide UNet has k as many frequencies."""
    factor = target.shape[1] // source.shape[1]
    weight = torch.zeros_like(target)
    weight[:, ::factor] = source.repeat_interleave(target.shape[0] // source.shape[0], 0)
    return weight
