"""The base model of people in three dimensions, which comes with ID-EA (`idea demo`)."""

from .base_model import BaseModel

WORLD3D = BaseModel(
    key="world3d",
    title="the world of people in three dimensions",
    encoders={"clip_world": 192},
    width=192,
    clip_layer=-1,
    resolution=96,
)
