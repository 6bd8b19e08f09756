"""Stable Diffusion 2.x."""

from .base_model import BaseModel, Checkpoint, ClipWeights

SD2 = BaseModel(
    key="sd2",
    title="Stable Diffusion 2.x",
    encoders={"clip_h": 1024},
    width=1024,
    clip_layer=-2,
    velocity_resolution=768,
    checkpoint=Checkpoint(
        # It reads the last of 24 layers but one: the last is left out, as in diffusers' folders.
        (ClipWeights("cond_stage_model.model.", layers=23, heads=16, open_clip=True),),
        latent_scale=0.18215,
        velocity_mark=("model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias", 0.09),
    ),
)
