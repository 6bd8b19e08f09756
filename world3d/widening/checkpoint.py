"""A small pipeline as one file that loaders of Stable Diffusion 1.x read."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from safetensors import SafetensorError
from safetensors.torch import save_file
from transformers import CLIPTextModel

from idea_core.headless.diffusers.single_file import clip_tokenizer

from .ldm import as_checkpoint
from .text import wide_text_encoder, widen_text_encoder
from .unet import wide_unet, widen_unet
from .vae import wide_vae, widen_vae


def write_checkpoint(pipeline: StableDiffusionPipeline, path: Path, dtype: torch.dtype = torch.float16) -> Path:
    """Write a small pipeline as a checkpoint of Stable Diffusion 1.x: 2.1 GB in half precision.

    Images are twice as large: `vae.py`. The file appears when it is whole. Raises OSError if it cannot be written.
    """
    states = (part.state_dict() for part in widened(pipeline))
    weights = {key: tensor.to(dtype).contiguous() for key, tensor in as_checkpoint(*states).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    try:
        save_file(weights, part, {"format": "pt"})
        part.replace(path)
    except SafetensorError as error:  # a full disk, for instance
        raise OSError(f"{path} could not be written: {error}") from None
    finally:
        part.unlink(missing_ok=True)
    return path


def widened(pipeline: StableDiffusionPipeline) -> tuple[UNet2DConditionModel, CLIPTextModel, AutoencoderKL]:
    """UNet, text encoder and VAE of Stable Diffusion 1.x's size that compute the same."""
    unet, vae, clip = wide_unet(pipeline.unet), wide_vae(), clip_tokenizer()
    widen_unet(pipeline.unet, unet)
    widen_vae(pipeline.vae, vae)
    text_encoder = wide_text_encoder(clip)
    widen_text_encoder(pipeline.text_encoder, pipeline.tokenizer, text_encoder, clip)
    return unet, text_encoder, vae
