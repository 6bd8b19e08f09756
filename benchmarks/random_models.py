"""Pipelines of Stable Diffusion's architectures with random weights: of full size, or thin for a CPU."""

from __future__ import annotations

import torch
from diffusers import (
    AutoencoderKL,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from idea_core.headless.diffusers.schedule import stable_diffusion_schedule
from idea_core.headless.diffusers.single_file import clip_tokenizer

TEXT = {
    "clip_l": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    "clip_h": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16},
    "clip_g": {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20},
}
ENCODERS = {"sd1": ("clip_l",), "sd2": ("clip_h",), "sdxl": ("clip_l", "clip_g")}
WIDTH = {"sd1": 768, "sd2": 1024, "sdxl": 2048}
UNET = {
    "sd1": {"attention_head_dim": 8},
    "sd2": {"attention_head_dim": [5, 10, 20, 20], "use_linear_projection": True},
    "sdxl": {
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": [1, 2, 10],
        "attention_head_dim": [5, 10, 20],
        "use_linear_projection": True,
    },
}
POOLED = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 1280 + 6 * 256,
}


def random_pipeline(family: str, full: bool, device: str, dtype: torch.dtype, vocabulary: int = 49408, seed: int = 0):
    """A pipeline of a base model's family.

    Args:
        family: key in `BASE_MODELS`.
        full: of full size; else two thin layers, beside a vocabulary and a width of full size.
        dtype: of UNet and VAE; text encoders are in single precision.
    """
    torch.manual_seed(seed)
    with torch.device(device):
        parts = {"unet": _unet(family, full).to(dtype), "vae": _vae(full).to(dtype)}
        for number, name in enumerate(ENCODERS[family]):
            suffix = f"_{number + 1}" if number else ""
            kind = CLIPTextModelWithProjection if number else CLIPTextModel
            sizes = TEXT[name] if full else {**TEXT[name], "num_hidden_layers": 2, "intermediate_size": 256}
            tokens = {"vocab_size": vocabulary, "bos_token_id": 49406, "eos_token_id": 49407}
            parts[f"text_encoder{suffix}"] = kind(CLIPTextConfig(**sizes, **tokens, projection_dim=1280)).eval()
            parts[f"tokenizer{suffix}"] = clip_tokenizer()
    parts["scheduler"] = stable_diffusion_schedule("eps")
    if family == "sdxl":
        return StableDiffusionXLPipeline(**parts, add_watermarker=False)
    return StableDiffusionPipeline(**parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False)


def _unet(family: str, full: bool) -> UNet2DConditionModel:
    pooled = POOLED if family == "sdxl" else {}
    if full:
        return UNet2DConditionModel(sample_size=64, cross_attention_dim=WIDTH[family], **UNET[family], **pooled)
    thin = {"block_out_channels": (32, 64), "layers_per_block": 1, "attention_head_dim": 8, "norm_num_groups": 8}
    blocks = {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    return UNet2DConditionModel(sample_size=8, cross_attention_dim=WIDTH[family], **thin, **blocks, **pooled)


def _vae(full: bool) -> AutoencoderKL:
    widths = (128, 256, 512, 512) if full else (16, 16, 32, 32)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    return AutoencoderKL(block_out_channels=widths, norm_num_groups=8, latent_channels=4, **blocks)
