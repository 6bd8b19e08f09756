"""Stable Diffusion 1.x."""

from .base_model import BaseModel, Checkpoint, ClipWeights

SD1 = BaseModel(
    key="sd1",
    title="Stable Diffusion 1.x",
    encoders={"clip_l": 768},
    width=768,
    clip_layer=-1,
    checkpoint=Checkpoint((ClipWeights("cond_stage_model.transformer.", layers=12, heads=12),), latent_scale=0.18215),
)
