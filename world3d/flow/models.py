"""The flow-matching base model in diffusers' and transformers' own classes, those of Z-Image, at small size."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
from torch import nn
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3Model

from ..models import LATENT_CHANNELS
from .tokenizer import LENGTH, PAD

WIDTH, TEXT_LAYERS, TEXT_HEADS = 128, 4, 4
DIM, LAYERS, HEADS = 192, 6, 6
AXES = (8, 12, 12)  # of a head's channels: place in the text, row, column
SHIFT = 2.0  # towards noise, where it is decided who somebody is


def build_text_encoder(tokenizer: Qwen2Tokenizer, width: int = WIDTH, layers: int = TEXT_LAYERS) -> Qwen3Model:
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=TEXT_HEADS,
        num_key_value_heads=TEXT_HEADS // 2,
        head_dim=width // TEXT_HEADS,
        max_position_embeddings=LENGTH,
        bos_token_id=None,
        eos_token_id=tokenizer.convert_tokens_to_ids(PAD),
        pad_token_id=tokenizer.pad_token_id,
        use_cache=False,
    )
    return Qwen3Model(config)


def build_transformer(width: int = WIDTH, layers: int = LAYERS) -> ZImageTransformer2DModel:
    """A transformer for text conditions of some width; at the start it answers 0, and its blocks add nothing (DiT)."""
    transformer = ZImageTransformer2DModel(
        in_channels=LATENT_CHANNELS,
        dim=DIM,
        n_layers=layers,
        n_refiner_layers=1,
        n_heads=HEADS,
        n_kv_heads=HEADS,
        cap_feat_dim=width,
        axes_dims=list(AXES),
        axes_lens=[256, 64, 64],
    )
    for name, module in transformer.named_modules():
        if isinstance(module, nn.Linear) and ("adaLN_modulation" in name or name.endswith(".linear")):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    with torch.no_grad():
        transformer.x_pad_token.normal_(std=0.02)
        transformer.cap_pad_token.normal_(std=0.02)
    return transformer


def build_pipeline(tokenizer, text_encoder, transformer, vae: AutoencoderKL) -> ZImagePipeline:
    vae.register_to_config(shift_factor=0.0)  # the pipeline reads one
    scheduler = FlowMatchEulerDiscreteScheduler(shift=SHIFT)
    return ZImagePipeline(scheduler, vae, text_encoder, tokenizer, transformer)
