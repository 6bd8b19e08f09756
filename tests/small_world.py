"""The base model of `world3d` with random weights, which `world3d.widening` makes a checkpoint of."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from miniature.models import build_pipeline
from world3d.models import build_text_encoder, build_unet, build_vae
from world3d.words import build_tokenizer

WORDS = ("a", "photo", "of", "alice", "archer", "hat", "blue", "wall")  # each one token of CLIP's own


def small_pipeline(folder: Path, seed: int = 0) -> StableDiffusionPipeline:
    """A pipeline of random weights, biases and norms among them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = build_tokenizer(folder)
        text_encoder, unet, vae = build_text_encoder(tokenizer), build_unet(), build_vae()
        for part in (text_encoder, unet, vae):
            for parameter in part.eval().requires_grad_(False).parameters():
                if parameter.ndim == 1:
                    parameter += 0.1 * torch.randn_like(parameter)
    vae.register_to_config(scaling_factor=0.76)
    return build_pipeline(tokenizer, text_encoder, unet, vae)
