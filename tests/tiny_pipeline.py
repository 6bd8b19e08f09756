"""Tiny pipelines of the real diffusers and transformers classes, with random weights and a tokenizer of letters."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from idea_core.families import BASE_MODELS
from idea_core.headless.diffusers.schedule import stable_diffusion_schedule
from idea_core.headless.diffusers.single_file import vocabulary


def tiny_pipeline(family: str = "sd1", prediction: str = "eps", seed: int = 0):
    """A pipeline that has a family's text widths and little else; pictures of 8 × 8 latents, 16 × 16 pixels."""
    torch.manual_seed(seed)
    widths = list(BASE_MODELS[family].encoders.values())
    parts = {"unet": _unet(family, sum(widths)), "vae": _vae(), "scheduler": stable_diffusion_schedule(prediction)}
    for number, width in enumerate(widths):
        suffix = f"_{number + 1}" if number else ""
        parts[f"text_encoder{suffix}"] = _text_encoder(width, layers=2, pooled=number > 0)
        parts[f"tokenizer{suffix}"] = letter_tokenizer()
    if family == "sdxl":
        pipeline = StableDiffusionXLPipeline(**parts, add_watermarker=False)
    else:
        pipeline = StableDiffusionPipeline(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@cache
def letter_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer without merges: a token a letter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "vocab.json").write_text(json.dumps(vocabulary([])), "utf-8")
        Path(folder, "merges.txt").write_text("#version: 0.2\n", "utf-8")
        return CLIPTokenizer.from_pretrained(folder, model_max_length=77)


def _text_encoder(width: int, layers: int, pooled: bool):
    tokenizer = letter_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        projection_dim=32,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return (CLIPTextModelWithProjection if pooled else CLIPTextModel)(config).eval()


def _unet(family: str, width: int) -> UNet2DConditionModel:
    extra = {}
    if family == "sdxl":
        extra = {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 32 + 6 * 8,
        }
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32,),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        cross_attention_dim=width,
        attention_head_dim=4,
        norm_num_groups=8,
        **extra,
    )


def _vae() -> AutoencoderKL:
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    return AutoencoderKL(block_out_channels=(8, 8), norm_num_groups=4, latent_channels=4, **blocks)
