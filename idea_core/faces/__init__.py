"""From photos to an identity embedding: face models, detection, choice of face, crops."""

from .embeds import IdEmbeds, blend
from .encode import encode_photos
from .engines import free_engines, load_engine
from .face import Face, FaceEngine
from .find import FacePhoto, FaceSettings
from .insightface_engine import InsightFaceEngine
from .onnx_engine import OnnxEngine
from .packs import FacePack, find_packs

__all__ = [
    "Face",
    "FaceEngine",
    "FacePack",
    "FacePhoto",
    "FaceSettings",
    "IdEmbeds",
    "InsightFaceEngine",
    "OnnxEngine",
    "blend",
    "encode_photos",
    "find_packs",
    "free_engines",
    "load_engine",
]
