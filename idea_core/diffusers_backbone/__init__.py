"""ID-EA on diffusers: a second front end under the same trainer, for scripts and other machines."""

from .backbone import DiffusersBackbone
from .generate import SCHEDULERS, GenerateConfig, generate
from .load import load_pipeline
from .people import People

__all__ = ["SCHEDULERS", "DiffusersBackbone", "GenerateConfig", "People", "generate", "load_pipeline"]
