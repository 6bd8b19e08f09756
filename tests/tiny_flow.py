"""Tiny pipelines of Z-Image and FLUX.2 Klein in diffusers' and transformers' real classes, with random weights."""

from __future__ import annotations

from functools import cache

import torch
from chat_template import TEMPLATE
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from tokenizers.pre_tokenizers import ByteLevel
from torch import nn
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3ForCausalLM, Qwen3Model

from idea_core.families import BASE_MODELS
from idea_core.families.language_models import QWEN3_STAND_INS

SIDE = 32  # pixels of images
_BLOCKS = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}


@cache
def byte_tokenizer() -> Qwen2Tokenizer:
    """Qwen's tokenizer without merges: a token a byte."""
    vocabulary = {sign: number for number, sign in enumerate(sorted(ByteLevel.alphabet()))}
    tokenizer = Qwen2Tokenizer(vocabulary, [])
    special = ["<|im_start|>", "<|im_end|>", "<think>", "</think>", *QWEN3_STAND_INS]
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def tiny_flow(family: str = "zimage", seed: int = 0):
    """A pipeline that has a family's text width and little else; images of 32 × 32 pixels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipeline = {"zimage": _zimage, "klein4b": _klein}[family]()
        for name, parameter in pipeline.transformer.named_parameters():
            if parameter.ndim == 1 or "pad_token" in name:
                parameter.data += 0.1 * torch.randn_like(parameter)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _zimage() -> ZImagePipeline:
    transformer = ZImageTransformer2DModel(
        in_channels=16,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=_width("zimage"),
        axes_dims=[4, 6, 6],
        axes_lens=[640, 64, 64],
    )
    blocks = {"block_out_channels": (8, 8), "norm_num_groups": 4, "latent_channels": 16}
    vae = AutoencoderKL(**blocks, **_BLOCKS, scaling_factor=0.36, shift_factor=0.12)
    return ZImagePipeline(
        FlowMatchEulerDiscreteScheduler(shift=3.0), vae, Qwen3Model(_qwen("zimage", 3)), byte_tokenizer(), transformer
    )


def _klein() -> Flux2KleinPipeline:
    transformer = Flux2Transformer2DModel(
        in_channels=128,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=BASE_MODELS["klein4b"].width,
        timestep_guidance_channels=32,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )
    blocks = {"block_out_channels": (8, 8), "norm_num_groups": 4, "latent_channels": 32}
    vae = AutoencoderKLFlux2(**blocks, **_BLOCKS)
    nn.init.normal_(vae.bn.running_mean)
    nn.init.uniform_(vae.bn.running_var, 0.5, 2.0)
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    return Flux2KleinPipeline(scheduler, vae, Qwen3ForCausalLM(_qwen("klein4b", 28)), byte_tokenizer(), transformer)


def _width(family: str) -> int:
    return next(iter(BASE_MODELS[family].encoders.values()))


def _qwen(family: str, layers: int) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=len(byte_tokenizer()),
        hidden_size=_width(family),
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        pad_token_id=byte_tokenizer().pad_token_id,
        bos_token_id=None,
        eos_token_id=None,
    )
