"""insightface's detector and recogniser. The package is imported only when a face model is used."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FaceError, MissingPackageError, SocketError
from .face import DETECTOR_SIZE, MIN_SCORE, Face, FaceEngine, RecogniserFile
from .packs import FacePack, choose_providers, load_models


class InsightFaceEngine(FaceEngine):
    """A face model pack, loaded by insightface.

    Args:
        pack: a folder with a detector (five key points) and an ArcFace recogniser, or a recogniser's file.
        provider: one of `PROVIDER_CHOICES`; "auto" uses the first available.

    Raises:
        MissingPackageError: insightface or onnxruntime is not installed.
        FaceError: the pack is incomplete, or the provider is not available.
    """

    def __init__(self, pack: FacePack, provider: str = "auto"):
        providers = choose_providers(provider)
        try:
            from insightface.model_zoo import get_model
        except Exception as error:  # a part compiled for another numpy raises errors of any kind
            raise MissingPackageError(
                "insightface to be installed", f"{type(error).__name__}: {error}", "Install it, or do without it."
            ) from error

        def load(path: Path) -> tuple[str, Any]:
            with redirect_stdout(sys.stderr):  # 0.7.3 prints to stdout, which holds a command's result
                model = get_model(str(path), providers=providers)
            return getattr(model, "taskname", "unknown"), model

        models = load_models(pack, load)
        self._set_models(models.get("detection"), models["recognition"])
        self._pack_name = pack.name

    @classmethod
    def of_analysis(cls, analysis: object) -> InsightFaceEngine:
        """The models of an insightface `FaceAnalysis` that another pack loaded, unchanged.

        Raises:
            SocketError: another object, or an analysis without recognition.
        """
        models = getattr(analysis, "models", None)
        if not isinstance(models, dict) or not {"detection", "recognition"} <= models.keys():
            raise SocketError(
                "a FaceAnalysis with detection and recognition",
                f"a {type(analysis).__name__} with {', '.join(map(str, models or ['nothing']))}",
                "Connect Load Face Model.",
            )
        engine = cls.__new__(cls)
        engine._set_models(models["detection"], models["recognition"])
        return engine

    def _set_models(self, detector: Any, recogniser: Any) -> None:  # insightface has no types
        self.require_width(recogniser.output_shape[1])
        self._detector, self._recogniser = detector, recogniser
        self._batch_size = recogniser.input_shape[0]
        self.providers = tuple(recogniser.session.get_providers())

    def detect(self, photo: np.ndarray, size: int = DETECTOR_SIZE, min_score: float = MIN_SCORE) -> list[Face]:
        self.require_detector()
        with self._with_min_score(min_score):
            # A detector of fixed size has set its own; 0.7.3 would resize wrongly to another.
            fixed = isinstance(self._detector.session.get_inputs()[0].shape[2], int)
            boxes, keypoints = self._detector.detect(_bgr(photo), None if fixed else (size, size))
        if keypoints is None:
            raise FaceError("a face detector with key points", "one without", "Choose a pack with an SCRFD of five.")
        return [Face(box[:4], points, float(box[4])) for box, points in zip(boxes, keypoints)]

    def detect_all(self, photos: Sequence[np.ndarray]) -> list[list[Face]]:
        self.require_detector()
        with self._with_min_score(MIN_SCORE):  # for all: one thread would reset it while others still detect
            return super().detect_all(photos)

    @contextmanager
    def _with_min_score(self, score: float) -> Iterator[None]:
        before, self._detector.det_thresh = self._detector.det_thresh, score
        try:
            yield
        finally:
            self._detector.det_thresh = before

    def align(self, photo: np.ndarray, face: Face) -> np.ndarray:
        from insightface.utils.face_align import norm_crop

        # As `ArcFaceONNX.get` aligns, except for the order of the colours.
        return norm_crop(photo, face.keypoints.astype(np.float32), self._recogniser.input_size[0])

    @property
    def recogniser_file(self) -> RecogniserFile:
        model = self._recogniser
        return RecogniserFile(Path(model.model_file), model.input_size[0], model.input_mean, 1 / model.input_std)

    def _embed(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        return self._recogniser.get_feat([_bgr(crop) for crop in crops])


def _bgr(photo: np.ndarray) -> np.ndarray:
    """insightface's models expect blue first."""
    return np.ascontiguousarray(photo[:, :, ::-1])
