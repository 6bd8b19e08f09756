"""insightface's detector and recogniser. The package is asked for only when a face model is used."""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np

from ..errors import FaceError, MissingPackageError
from .embeds import Face
from .packs import FacePack

DETECTOR_SIZE = (640, 640)

PROVIDERS = {
    "cuda": "CUDAExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
PROVIDER_CHOICES = ("auto", *PROVIDERS)


class InsightFaceEngine:
    """A face model pack, loaded by insightface.

    Args:
        pack: folder with a detector (five key points) and an ArcFace recogniser.
        provider: one of `PROVIDER_CHOICES`; "auto" takes the first that is there.

    Raises:
        MissingPackageError: insightface or onnxruntime is not installed.
        FaceError: the pack is incomplete, or the provider is not there.
    """

    def __init__(self, pack: FacePack, provider: str = "auto"):
        onnxruntime, get_model = _require_packages()
        chosen = _choose_providers(provider, onnxruntime.get_available_providers())
        models = {}
        for path in pack.files():
            model = get_model(str(path), providers=chosen)
            models.setdefault(getattr(model, "taskname", "unknown"), model)
            if {"detection", "recognition"} <= models.keys():
                break
        self._detector = _take(models, "detection", pack)
        self._recogniser = _take(models, "recognition", pack)
        self._detector.prepare(ctx_id=0, input_size=DETECTOR_SIZE, det_thresh=0.5)
        self.providers = tuple(self._recogniser.session.get_providers())

    def detect(self, photo: np.ndarray) -> list[Face]:
        boxes, keypoints = self._detector.detect(_bgr(photo))
        return [Face(box[:4], points, float(box[4])) for box, points in zip(boxes, keypoints)]

    def embed(self, photo: np.ndarray, face: Face) -> np.ndarray:
        return self._recogniser.get(_bgr(photo), SimpleNamespace(kps=face.keypoints.astype(np.float32)))


def _bgr(photo: np.ndarray) -> np.ndarray:
    """insightface's models want blue first."""
    return np.ascontiguousarray(photo[:, :, ::-1])


def _require_packages():
    # onnxruntime looks up a telemetry host when it is imported, unless told not to before that.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
        from insightface.model_zoo import get_model
    except ImportError as error:
        raise MissingPackageError(
            "insightface and onnxruntime to be installed",
            f"no {error.name}",
            "Install an extra of id-ea with ComfyUI's Python, in the pack's folder: "
            'python -m pip install ".[face-cpu]" (face-gpu, face-directml: see "Install" in the README).',
        ) from error
    return onnxruntime, get_model


def _choose_providers(choice: str, available: Sequence[str]) -> list[str]:
    """Providers to ask for; the CPU always stands behind the chosen one."""
    wanted = PROVIDERS.values() if choice == "auto" else [PROVIDERS[choice]]
    usable = [provider for provider in wanted if provider in available]
    if not usable:
        raise FaceError(
            f"onnxruntime with {PROVIDERS[choice]}",
            f"only {', '.join(available)}",
            "Choose auto, or install the extra that brings it.",
        )
    return list(dict.fromkeys([usable[0], PROVIDERS["cpu"]]))


def _take(models: dict, task: str, pack: FacePack):
    if task not in models:
        names = ", ".join(path.name for path in pack.files()) or "no .onnx file"
        raise FaceError(f"a {task} model in {pack.folder}", names, "Unpack the whole face model pack there.")
    return models[task]
