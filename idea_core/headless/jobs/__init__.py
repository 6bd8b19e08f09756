"""Whole tasks from files to files, on diffusers: train one person, or many."""

from .sources import FaceSource, ModelSource, PhotoSource
from .train import TrainJob

__all__ = ["FaceSource", "ModelSource", "PhotoSource", "TrainJob"]
