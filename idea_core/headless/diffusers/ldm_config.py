"""The architecture of an LDM checkpoint, inferred from its weights, in the form of diffusers' converters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from torch import Tensor

from ...errors import BaseModelError
from ...families import of_unet

Weights = Mapping[str, Tensor]
UNET = "model.diffusion_model."
HEAD_CHANNELS, HEADS = 64, 8  # SD 2.x and XL: channels per head; SD 1.x: number of heads
_FIX = "Choose a checkpoint of Stable Diffusion 1.x, 2.x or XL, noise or velocity prediction, for text to image."


def ldm_config(weights: Weights, name: str) -> tuple[str, dict[str, Any]]:
    """Key in `BASE_MODELS` and configuration of a checkpoint.

    Args:
        name: of the file, for errors.

    Raises:
        BaseModelError: another kind of model.
    """
    unet = _unet_config(weights, name)
    family = of_unet(unet["context_dim"], unet.get("adm_in_channels"))
    if family is None:
        size = " and vector conditioning" if "adm_in_channels" in unet else ""
        raise BaseModelError("a base model that ID-EA knows", f"text width {unet['context_dim']}{size} in {name}", _FIX)
    if unet["in_channels"] != family.latent_channels:
        got = f"{unet['in_channels']} in {name}"
        raise BaseModelError(f"a UNet with {family.latent_channels} latent channels", got, _FIX)
    # diffusers' converter also needs to know how often the VAE halves an image.
    vae = {"params": {"ddconfig": {"ch_mult": [1, 2, 4, 4]}}}
    return family.key, {"model": {"params": {"unet_config": {"params": unet}, "first_stage_config": vae}}}


def _unet_config(weights: Weights, name: str) -> dict[str, Any]:
    first, last = weights.get(f"{UNET}input_blocks.0.0.weight"), weights.get(f"{UNET}out.2.weight")
    levels = _levels(weights)
    attending = [level for level in levels if level.depth]
    if first is None or last is None or not attending:
        some = ", ".join(sorted({key.split(".")[0] for key in weights})[:5])
        raise BaseModelError(f"a UNet under {UNET} in {name}", f"entries of {some or 'no tensor'}", _FIX)
    width = first.shape[0]
    probe = attending[0].attention
    linear = weights[f"{probe}.proj_in.weight"].ndim == 2
    vector = weights.get(f"{UNET}label_emb.0.0.weight")
    depths = [max(level.depth, 1) for level in levels]
    return {
        "in_channels": first.shape[1],
        "out_channels": last.shape[0],
        "model_channels": width,
        "channel_mult": [level.width // width for level in levels],
        "num_res_blocks": levels[0].blocks,
        "attention_resolutions": [2**number for number, level in enumerate(levels) if level.depth],
        "transformer_depth": depths if max(depths) > 1 else 1,
        "context_dim": weights[f"{probe}.transformer_blocks.0.attn2.to_k.weight"].shape[1],
        "use_linear_in_transformer": linear,
        **({"num_head_channels": HEAD_CHANNELS} if linear else {"num_heads": HEADS}),
        **({} if vector is None else {"num_classes": "sequential", "adm_in_channels": vector.shape[1]}),
    }


@dataclass
class _Level:
    """One resolution of the UNet's encoder."""

    width: int = 0
    blocks: int = 0
    depth: int = 0  # transformer blocks of an attention
    attention: str = ""


def _levels(weights: Weights) -> list[_Level]:
    levels = [_Level()]
    for number in count(1):
        block = f"{UNET}input_blocks.{number}"
        residual = weights.get(f"{block}.0.out_layers.3.weight")
        if residual is not None:
            level, transformers = levels[-1], f"{block}.1.transformer_blocks"
            level.width, level.blocks = residual.shape[0], level.blocks + 1
            depth = next(n for n in count() if f"{transformers}.{n}.attn2.to_k.weight" not in weights)
            if depth:
                level.attention, level.depth = f"{block}.1", depth
        elif f"{block}.0.op.weight" in weights:
            levels.append(_Level())
        else:
            break
    return levels
