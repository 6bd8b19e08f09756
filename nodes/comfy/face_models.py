"""FACE_MODEL: a choice of face models. They are loaded when used, and freed when ComfyUI unloads models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import comfy.model_management
import numpy as np
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP

from ...idea_core.faces import Face, FaceEngine, FacePack, InsightFaceEngine, free_engines, load_engine
from ...idea_core.faces.face import DETECTOR_SIZE, MIN_SCORE, RecogniserFile
from ...idea_core.files.digest import digest_of, file_digest


@dataclass(frozen=True)
class FaceModels:
    """A choice of face models; it holds no memory itself."""

    pack: FacePack
    provider: str

    def engine(self) -> FaceEngine:
        """The models in memory. Do not keep them: ComfyUI could not free them."""
        engine = load_engine(self.pack, self.provider)
        comfy.model_management.load_models_gpu([_reminder()])
        return engine


def engine_of(face_model: Any) -> FaceEngine:
    """The engine behind a FACE_MODEL, or behind another pack's FACEANALYSIS or INSIGHTFACE.

    Raises:
        SocketError: another object.
    """
    if isinstance(face_model, FaceModels):
        return face_model.engine()
    return InsightFaceEngine.of_analysis(face_model)


class ReloadedEngine(FaceEngine):
    """A FACE_MODEL's engine for long work. It is loaded at each use, so that ComfyUI may free it in between."""

    def __init__(self, face_model: Any):
        self._face_model = face_model
        self.providers = engine_of(face_model).providers

    def detect(self, photo: np.ndarray, size: int = DETECTOR_SIZE, min_score: float = MIN_SCORE) -> list[Face]:
        return engine_of(self._face_model).detect(photo, size, min_score)

    def detect_all(self, photos: Sequence[np.ndarray]) -> list[list[Face]]:
        return engine_of(self._face_model).detect_all(photos)  # loaded once, and not in several threads

    def require_detector(self) -> None:
        engine_of(self._face_model).require_detector()

    def align(self, photo: np.ndarray, face: Face) -> np.ndarray:
        return engine_of(self._face_model).align(photo, face)

    @property
    def recogniser_file(self) -> RecogniserFile:
        return engine_of(self._face_model).recogniser_file

    def embed_crops(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        return engine_of(self._face_model).embed_crops(crops)

    _embed = embed_crops  # the engine makes its own batches


def face_digest(face_model: Any) -> str:
    """SHA-256 of a FACE_MODEL's files; for another pack's models, of the files' names."""
    if isinstance(face_model, FaceModels):
        return digest_of(*map(file_digest, face_model.pack.files()))
    models = getattr(face_model, "models", {})
    files = (f"{task} {getattr(models[task], 'model_file', '')}" for task in sorted(models))
    return digest_of(type(face_model), *files)


class FaceModelMemory(torch.nn.Module):
    """Stands for the face models in ComfyUI's list of loaded models; it has no weights."""


@cache
def _reminder() -> ModelPatcher:
    """An entry in that list, through which ComfyUI unloads the face models."""
    devices = comfy.model_management.get_torch_device(), torch.device("cpu")
    patcher = ModelPatcher(FaceModelMemory(), *devices, size=1)
    patcher.add_callback(CallbacksMP.ON_DETACH, lambda _, whole: free_engines() if whole else None)
    return patcher
