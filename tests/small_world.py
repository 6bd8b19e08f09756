"""The world's base model with random weights: the layout that `miniature.widening` makes a checkpoint of."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from idea_core.headless.diffusers.schedule import stable_diffusion_schedule
from idea_core.headless.diffusers.single_file import vocabulary

WORDS = ("a", "photo", "of", "alice", "smith", "hat", "on", "blue")  # each one token of CLIP's own
MERGES = [
    "p h", "o t", "ph ot", "phot o</w>", "o f</w>", "a l", "i c", "ic e</w>", "al ice</w>",
    "s m", "i t", "it h</w>", "sm ith</w>", "h a", "ha t</w>", "o n</w>", "b l", "u e</w>", "bl ue</w>",
]  # fmt: skip


def small_tokenizer(folder: Path) -> CLIPTokenizer:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary(MERGES)), "utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]), "utf-8")
    return CLIPTokenizer.from_pretrained(folder, local_files_only=True, model_max_length=77)


def small_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=192,
            intermediate_size=768,
            num_hidden_layers=3,
            num_attention_heads=12,
            hidden_act="quick_gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def small_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=24,
        in_channels=4,
        out_channels=4,
        block_out_channels=(64, 128, 256),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        mid_block_type=None,
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=192,
        attention_head_dim=8,
        norm_num_groups=32,
    )


def small_vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=96,
        scaling_factor=0.76,
    )


def small_pipeline(folder: Path, seed: int = 0) -> StableDiffusionPipeline:
    """A pipeline of random weights, biases and norms among them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = small_tokenizer(folder)
        parts = {"text_encoder": small_text_encoder(tokenizer), "unet": small_unet(), "vae": small_vae()}
        for part in parts.values():
            for parameter in part.eval().requires_grad_(False).parameters():
                if parameter.ndim == 1:
                    parameter += 0.1 * torch.randn_like(parameter)
    return StableDiffusionPipeline(
        **parts,
        tokenizer=tokenizer,
        scheduler=stable_diffusion_schedule("eps"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
