"""The world's base model: real diffusers and transformers classes at small size."""

from __future__ import annotations

from pathlib import Path

from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from idea_core.headless.diffusers.schedule import stable_diffusion_schedule

from . import tokenizer as tokenizers
from .render import SIZE
from .words import LENGTH, words

WIDTH = 128  # of the text condition
LATENT_CHANNELS = 4
LATENT_SIZE = SIZE // 4


def build_tokenizer(folder: Path) -> CLIPTokenizer:
    """The tokenizer, whose files are written to a folder first."""
    return tokenizers.build_tokenizer(folder, words(), LENGTH)


def build_text_encoder(
    tokenizer: CLIPTokenizer, width: int = WIDTH, layers: int = 4, heads: int = 4, length: int = LENGTH
) -> CLIPTextModel:
    """An untrained text encoder that reads `length` tokens."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=length,
        hidden_act="quick_gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def build_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(64, 128),
        layers_per_block=1,
        # Attention on the lower resolution alone: half the cost.
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def build_vae(size: int = SIZE) -> AutoencoderKL:
    """An untrained VAE that makes images of `size` pixels four times smaller."""
    return AutoencoderKL(
        block_out_channels=(16, 32, 64),  # multiples of 16: processors are twice as fast there
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=size,
    )


def build_pipeline(tokenizer, text_encoder, unet, vae) -> StableDiffusionPipeline:
    return StableDiffusionPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        unet=unet,
        vae=vae,
        scheduler=stable_diffusion_schedule("eps"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
