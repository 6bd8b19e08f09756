"""Weights of diffusers' and transformers' classes under the names of a Stable Diffusion 1.x checkpoint in one file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from torch import Tensor

from idea_core.families.ldm_names import LAYERS_PER_BLOCK

_STEP = LAYERS_PER_BLOCK + 1  # blocks of a level
_UNET, _TEXT, _VAE = "model.diffusion_model.", "cond_stage_model.transformer.text_model.", "first_stage_model."
_LEVEL = re.compile(r"(?P<side>down|up)_blocks\.(?P<level>\d+)\.(?P<kind>\w+)\.(?P<layer>\d+)\.(?P<rest>.*)")
_MID = re.compile(r"mid_block\.(?P<kind>\w+)\.(?P<layer>\d+)\.(?P<rest>.*)")
_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_RESIDUAL = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_VAE_PARTS = {
    "conv_shortcut": "nin_shortcut",
    "conv_norm_out": "norm_out",
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}


def as_checkpoint(
    unet: Mapping[str, Tensor], text_encoder: Mapping[str, Tensor], vae: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The weights of a checkpoint in one file; arguments are `state_dict`s."""
    parts = [
        *((_UNET + unet_name(key), tensor) for key, tensor in unet.items()),
        *((_TEXT + key.removeprefix("text_model."), tensor) for key, tensor in text_encoder.items()),
        *((_VAE + key, tensor) for key, tensor in _vae_weights(vae)),
    ]
    return dict(parts)


def unet_name(key: str) -> str:
    """ "down_blocks.0.resnets.1.conv1.weight" → "input_blocks.2.0.in_layers.2.weight"."""
    layer, end = key.rsplit(".", 1)
    if layer in _ENDS:
        return f"{_ENDS[layer]}.{end}"
    if match := _MID.fullmatch(key):
        number = 2 * int(match["layer"]) if match["kind"] == "resnets" else 1
        return f"middle_block.{number}.{_inside(match['kind'], match['rest'])}"
    match = _LEVEL.fullmatch(key)
    if match is None:
        raise ValueError(key)
    level, kind, rest = int(match["level"]), match["kind"], match["rest"]
    if kind == "downsamplers":
        return f"input_blocks.{_STEP * (level + 1)}.0.{rest.replace('conv', 'op')}"
    if kind == "upsamplers":
        return f"output_blocks.{_STEP * level + LAYERS_PER_BLOCK}.{2 if level else 1}.{rest}"
    block = _STEP * level + int(match["layer"])
    place = f"input_blocks.{block + 1}" if match["side"] == "down" else f"output_blocks.{block}"
    return f"{place}.{0 if kind == 'resnets' else 1}.{_inside(kind, rest)}"


def _inside(kind: str, rest: str) -> str:
    if kind != "resnets":
        return rest
    part, end = rest.rsplit(".", 1)
    return f"{_RESIDUAL[part]}.{end}"


def _vae_weights(vae: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    levels = 1 + max(int(match["level"]) for match in map(_LEVEL.search, vae) if match)
    for key, tensor in vae.items():
        name = re.sub(
            r"(down|up)_blocks\.(\d+)",
            lambda match: f"{match[1]}.{match[2] if match[1] == 'down' else levels - 1 - int(match[2])}",
            key,
        )
        name = name.replace(".resnets.", ".block.").replace("samplers.0", "sample")
        name = re.sub(r"mid_block\.block\.(\d)", lambda match: f"mid.block_{int(match[1]) + 1}", name)
        name = name.replace("mid_block.attentions.0", "mid.attn_1")
        for ours, theirs in _VAE_PARTS.items():
            name = name.replace(f".{ours}.", f".{theirs}.")
        is_attention = ".attn_1." in name and tensor.ndim == 2
        yield name, tensor[..., None, None] if is_attention else tensor
