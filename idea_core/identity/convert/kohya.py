"""K/V deltas as a LoRA with kohya's keys, which other programs load too.

Keys are diffusers' names for Stable Diffusion 1.x and 2.x and LDM's for SDXL, as kohya's own trainer writes them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ...errors import ConfigError, IdentityFileError
from ...families.ldm_names import to_diffusers, to_ldm
from ...files.tensorfile import write_tensors
from ...files.weights import read_weights, tensors_in
from ...method.kv import DOWN, FULL, UP, layers_of
from ..identity import Identity

PREFIX, ALPHA = "lora_unet_", ".alpha"
_LAYER = re.compile(
    r"lora_unet_(?:(?P<side>down|up|input|output)_blocks_(?P<block>\d+)|(?P<middle>mid_block|middle_block))_"
    r"(?:attentions_(?P<layer>\d+)|1)_transformer_blocks_(?P<depth>\d+)_attn2_to_(?P<kind>[kv])"
)


def write_kv(identity: Identity, path: str | os.PathLike) -> Path:
    """Write a person's K/V deltas as a LoRA; full matrices stay full, under `.diff`.

    Raises ConfigError if the person has none, or if the file's name does not fit.
    """
    if not identity.kv:
        raise ConfigError("a person with K/V deltas", f"none in {identity.name}", "Train with a kv_lr above 0.")
    if Path(path).suffix != ".safetensors":
        raise ConfigError("a LoRA file to end in .safetensors", Path(path).name, "Change the output's name.")
    tensors: dict[str, Tensor] = {}
    for layer, suffixes in layers_of(identity.kv).items():
        name = layer.removeprefix("diffusion_model.") if identity.base.lora_names == "ldm" else to_diffusers(layer)
        key = PREFIX + name.replace(".", "_")
        tensors |= {key + suffix: identity.kv[layer + suffix] for suffix in suffixes}
        if DOWN in suffixes:
            down = identity.kv[layer + DOWN]
            tensors[key + ALPHA] = torch.tensor(float(down.shape[0]), dtype=down.dtype)
    return write_tensors(path, tensors, {"ss_network_module": "networks.lora", "ss_output_name": identity.name})


def read_kv(path: str | os.PathLike) -> tuple[dict[str, Tensor], int]:
    """The key and value layers of a LoRA under an identity's names, and the number of its other layers.

    Raises IdentityFileError for no LoRA, no key or value layers of cross attentions in it, or NaN or Inf in them.
    """
    layers: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors_in(read_weights(path)).items():
        layer, _, suffix = key.partition(".")
        layers.setdefault(layer, {})["." + suffix] = tensor
    matches = {layer: match for layer in layers if (match := _LAYER.fullmatch(layer))}
    kv: dict[str, Tensor] = {}
    for layer, match in matches.items():
        kv |= _weights_of(_ldm_name(match), layers[layer], Path(path).name)
    if not kv:
        raise IdentityFileError(
            f"a LoRA with layers {PREFIX}…_attn2_to_k in {Path(path).name}",
            ", ".join(sorted(layers)[:3]) or "no tensor",
            "Choose a LoRA of a UNet's cross attentions.",
        )
    if bad := [key for key, tensor in kv.items() if not torch.isfinite(tensor).all()]:
        raise IdentityFileError(
            f"a LoRA of finite numbers in {Path(path).name}", f"others in {bad[0]}", "Download or train it again."
        )
    return kv, len(layers) - len(matches)


def _ldm_name(match: re.Match) -> str:
    rest = f".transformer_blocks.{match['depth']}.attn2.to_{match['kind']}"
    if match["side"] in ("input", "output"):
        return f"diffusion_model.{match['side']}_blocks.{match['block']}.1{rest}"
    if match["middle"]:
        return f"diffusion_model.middle_block.1{rest}"
    return to_ldm(f"{match['side']}_blocks.{match['block']}.attentions.{match['layer']}{rest}")


def _weights_of(layer: str, parts: Mapping[str, Tensor], file: str) -> dict[str, Tensor]:
    """One layer's weights; kohya's alpha / rank goes into the up matrix."""
    if set(parts) == {FULL}:
        return {layer + FULL: parts[FULL]}
    plain = {UP, DOWN} <= set(parts) <= {UP, DOWN, ALPHA} and parts[UP].ndim == parts[DOWN].ndim == 2
    if not plain or not parts[DOWN].shape[0] or (ALPHA in parts and parts[ALPHA].numel() != 1):
        got = ", ".join(f"{key} of shape {tuple(parts[key].shape)}" for key in sorted(parts))
        raise IdentityFileError(f"{UP} and {DOWN} of {layer} in {file}", got, "Choose a plain LoRA.")
    scale = float(parts[ALPHA]) / parts[DOWN].shape[0] if ALPHA in parts else 1.0
    up = parts[UP] if scale == 1.0 else parts[UP] * scale
    return {layer + UP: up, layer + DOWN: parts[DOWN]}
