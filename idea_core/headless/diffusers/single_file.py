"""Checkpoints in one file (LDM format) → a diffusers pipeline, without any network.

The architecture is read off the weights' names and shapes; conversion is diffusers' own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_clip_checkpoint, convert_open_clip_checkpoint
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from ...errors import BaseModelError
from .ldm_config import UNET, ldm_config
from .quantised import plain_weights
from .schedule import stable_diffusion_schedule
from .tokenizers import clip_tokenizer
from .vae import load_vae, vae_from

Weights = Mapping[str, Tensor]
_FIX = "Choose a checkpoint of Stable Diffusion 1.x, 2.x or XL."


@dataclass(frozen=True)
class TextEncoderSpec:
    """One text encoder of a checkpoint in one file."""

    prefix: str
    config: Mapping[str, Any]
    open_clip: bool = False
    pooled: bool = False  # with the projection that SDXL takes its pooled output from
    pad: str = "<|endoftext|>"


def _clip(width: int, layers: int, heads: int, activation: str = "gelu", **more) -> dict[str, Any]:
    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers}
    return {**sizes, "num_attention_heads": heads, "hidden_act": activation, **more}


_CLIP_L = _clip(768, 12, 12, "quick_gelu")
SPECS = {
    "sd1": (TextEncoderSpec("cond_stage_model.transformer.", _CLIP_L),),
    # Stable Diffusion 2 reads the last layer but one: the last is left out, as in diffusers' folders.
    "sd2": (TextEncoderSpec("cond_stage_model.model.", _clip(1024, 23, 16), open_clip=True, pad="!"),),
    "sdxl": (
        TextEncoderSpec("conditioner.embedders.0.transformer.", _CLIP_L),
        TextEncoderSpec(
            "conditioner.embedders.1.model.",
            _clip(1280, 32, 20, projection_dim=1280),
            open_clip=True,
            pooled=True,
            pad="!",
        ),
    ),
}
SAMPLE_SIZES = {"sd1": 64, "sd2": 64, "sdxl": 128}
"""Base model → side of the latents that it was trained on; the velocity models of Stable Diffusion 2 have 96."""
V_PREDICTION_BIAS = UNET + "output_blocks.11.1.transformer_blocks.0.norm1.bias"
V_PREDICTION_SPREAD = 0.09  # of that bias, in SD 2.x: below it for noise prediction, above it for velocity (ComfyUI)


def load_single_file(
    path: Path, dtype: torch.dtype, vae: Path | None = None, prediction: str | None = None
) -> StableDiffusionPipeline | StableDiffusionXLPipeline:
    """A pipeline from a .safetensors or .ckpt file, on the CPU.

    Args:
        dtype: of UNet and VAE; text encoders are in single precision.
        vae: a VAE's file or folder, in place of the file's own.
        prediction: "eps" or "v"; None: told from the weights.

    Raises:
        BaseModelError: no checkpoint of a supported family, one with parts missing, or quantised in an unknown way.
        IdentityFileError: not a weight file, damaged, or a pickle with more than weights in it.
    """
    weights = plain_weights(path, UNET, dtype)
    family, config = ldm_config(weights, path.name)
    if any(key.startswith("edm_") for key in weights):
        raise BaseModelError("a model on Stable Diffusion's noise schedule", f"EDM's in {path.name}", _FIX)
    prediction = prediction or _prediction_of(family, weights)
    unet = UNet2DConditionModel.from_single_file(dict(weights), original_config=config, torch_dtype=dtype)
    unet.register_to_config(sample_size=96 if (family, prediction) == ("sd2", "v") else SAMPLE_SIZES[family])
    parts = {
        "unet": unet,
        "vae": load_vae(vae, family, dtype) if vae else vae_from(weights, family, path.name, dtype),
        "scheduler": stable_diffusion_schedule(prediction, "ztsnr" in weights),
    }
    for number, spec in enumerate(SPECS[family]):
        suffix = f"_{number + 1}" if number else ""
        parts[f"text_encoder{suffix}"] = _text_encoder(spec, weights, path.name)
        parts[f"tokenizer{suffix}"] = clip_tokenizer(spec.pad)
    if family == "sdxl":
        return StableDiffusionXLPipeline(**parts, add_watermarker=False)
    return StableDiffusionPipeline(**parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False)


def _text_encoder(spec: TextEncoderSpec, weights: Weights, name: str) -> CLIPTextModel:
    kind = CLIPTextModelWithProjection if spec.pooled else CLIPTextModel
    # The ids are CLIP's start and end tokens; transformers' defaults are another vocabulary's.
    model = kind(CLIPTextConfig(**spec.config, bos_token_id=49406, eos_token_id=49407))
    mine = {key: tensor for key, tensor in weights.items() if key.startswith(spec.prefix)}
    convert = convert_open_clip_checkpoint if spec.open_clip else convert_ldm_clip_checkpoint
    state = convert(model, mine, prefix=spec.prefix) if spec.open_clip else convert(mine)
    wanted = model.state_dict()
    # transformers dropped the inner "text_model." from some classes in version 5.6.
    bare = {key.removeprefix("text_model."): tensor.float() for key, tensor in state.items()}
    found = {key: bare.get(key.removeprefix("text_model.")) for key in wanted if not key.endswith("position_ids")}
    for key, tensor in found.items():
        if tensor is None or tensor.shape != wanted[key].shape:
            got = "none" if tensor is None else str(tuple(tensor.shape))
            raise BaseModelError(f"{spec.prefix}{key} of shape {tuple(wanted[key].shape)} in {name}", got, _FIX)
    model.load_state_dict(found, strict=False)
    return model.eval()


def _prediction_of(family: str, weights: Weights) -> str:
    """What the file's own marks say; Stable Diffusion 2 has none but the spread of one bias."""
    if "v_pred" in weights:
        return "v"
    bias = weights.get(V_PREDICTION_BIAS)
    if family == "sd2" and bias is not None and bias.float().std(unbiased=False) > V_PREDICTION_SPREAD:
        return "v"
    return "eps"
