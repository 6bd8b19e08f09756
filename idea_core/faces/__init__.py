"""From photos to an identity embedding: face models, detection, choice of face, crops."""

from .embeds import Face, FaceEngine, FacePhoto, IdEmbeds, encode_photos
from .insightface_engine import InsightFaceEngine
from .packs import FacePack, find_packs

__all__ = [
    "Face",
    "FaceEngine",
    "FacePack",
    "FacePhoto",
    "IdEmbeds",
    "InsightFaceEngine",
    "encode_photos",
    "find_packs",
]
