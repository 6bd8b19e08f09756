"""What travels through FACE_MODEL: which face models, loaded when they are used, freed when ComfyUI unloads models."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP

from ...idea_core.faces import FaceEngine, FacePack, InsightFaceEngine, free_engines, load_engine
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


class ReloadedEngine:
    """A FACE_MODEL's engine for long work: loaded at each use, so that ComfyUI may free it in between."""

    def __init__(self, face_model: Any):
        self._face_model = face_model

    def __getattr__(self, name: str) -> Any:
        return getattr(engine_of(self._face_model), name)


def face_digest(face_model: Any) -> str:
    """SHA-256 of the models' files, on which a FACE_MODEL's faces depend; for another pack's, of their names."""
    if isinstance(face_model, FaceModels):
        return digest_of(*map(file_digest, face_model.pack.files()))
    models = getattr(face_model, "models", {})
    files = (f"{task} {getattr(models[task], 'model_file', '')}" for task in sorted(models))
    return digest_of(type(face_model), *files)


class FaceModelMemory(torch.nn.Module):
    """Stands for the face models in ComfyUI's list of loaded models; it has no weights of its own."""


@cache
def _reminder() -> ModelPatcher:
    """An entry in that list, through which ComfyUI says that models are to be unloaded."""
    devices = comfy.model_management.get_torch_device(), torch.device("cpu")
    patcher = ModelPatcher(FaceModelMemory(), *devices, size=1)
    patcher.add_callback(CallbacksMP.ON_DETACH, lambda _, whole: free_engines() if whole else None)
    return patcher
