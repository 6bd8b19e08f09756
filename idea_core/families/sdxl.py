"""Stable Diffusion XL (arXiv 2307.01952)."""

from .base_model import BaseModel, Checkpoint, ClipWeights

SDXL = BaseModel(
    key="sdxl",
    title="Stable Diffusion XL",
    encoders={"clip_l": 768, "clip_g": 1280},
    width=2048,
    clip_layer=-2,
    resolution=1024,
    vector_width=2816,  # pooled text 1280, and 256 for each of six sizes
    kv_rank=2,
    lora_names="ldm",
    pipeline="StableDiffusionXLPipeline",
    checkpoint=Checkpoint(
        (
            ClipWeights("conditioner.embedders.0.transformer.", layers=12, heads=12),
            ClipWeights("conditioner.embedders.1.model.", layers=32, heads=20, open_clip=True, projection=1280),
        ),
        latent_scale=0.13025,
    ),
)
