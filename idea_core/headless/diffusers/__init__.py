"""ID-EA on diffusers: the front end of the same trainer for scripts."""

from ..config import SCHEDULERS, GenerateConfig
from .applied import People
from .backbone import DiffusersBackbone
from .flow.applied import FlowPeople
from .flow.backbone import FlowBackbone
from .generate import generate
from .kinds import backbone_of, people_of
from .load import load_pipeline

__all__ = [
    "SCHEDULERS",
    "DiffusersBackbone",
    "FlowBackbone",
    "FlowPeople",
    "GenerateConfig",
    "People",
    "backbone_of",
    "generate",
    "load_pipeline",
    "people_of",
]
