"""ID-EA on diffusers: the front end of the same trainer for scripts."""

from ..config import SCHEDULERS, GenerateConfig
from .applied import People
from .backbone import DiffusersBackbone
from .generate import generate
from .load import load_pipeline

__all__ = ["SCHEDULERS", "DiffusersBackbone", "GenerateConfig", "People", "generate", "load_pipeline"]
