"""Tasks from files to files on diffusers: train one person, many people, or an ID-Enhancer."""

from .photo_source import PhotoSource
from .sources import FaceSource, ModelSource
from .train import TrainJob

__all__ = ["FaceSource", "ModelSource", "PhotoSource", "TrainJob"]
