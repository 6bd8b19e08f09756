"""The miniature world's base model, which comes with ID-EA."""

from .base_model import BaseModel

MINI = BaseModel(
    key="mini",
    title="the miniature world",
    encoders={"clip_mini": 128},
    width=128,
    clip_layer=-1,
    context_length=32,
    resolution=64,
)
