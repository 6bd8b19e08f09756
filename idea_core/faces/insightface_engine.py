"""insightface's detector and recogniser. The package is asked for only when a face model is used."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import numpy as np

from ..errors import FaceError, MissingPackageError, SocketError
from .face import DETECTOR_SIZE, MIN_SCORE, Face, FaceEngine, RecogniserFile, batches
from .packs import FacePack, take_models
from .providers import choose_providers, require_onnxruntime


class InsightFaceEngine(FaceEngine):
    """A face model pack, loaded by insightface.

    Args:
        pack: a folder with a detector (five key points) and an ArcFace recogniser, or a recogniser's file.
        provider: one of `PROVIDER_CHOICES`; "auto" takes the first that is there.

    Raises:
        MissingPackageError: insightface or onnxruntime is not installed.
        FaceError: the pack is incomplete, or the provider is not there.
    """

    def __init__(self, pack: FacePack, provider: str = "auto"):
        onnxruntime, get_model = require_onnxruntime(), _require_insightface()
        chosen = choose_providers(provider, onnxruntime.get_available_providers())

        def load(path: Path):
            with redirect_stdout(sys.stderr):  # 0.7.3 prints, where a command's results belong
                model = get_model(str(path), providers=chosen)
            return getattr(model, "taskname", "unknown"), model

        models = take_models(pack, load)
        self._use(models.get("detection"), models["recognition"])
        self._pack = pack

    @classmethod
    def of_analysis(cls, analysis) -> InsightFaceEngine:
        """The models of an insightface `FaceAnalysis` that another pack loaded, as they are.

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
        engine._use(models["detection"], models["recognition"])
        return engine

    def _use(self, detector, recogniser) -> None:
        self.require_width(recogniser.output_shape[1])
        self._detector, self._recogniser = detector, recogniser
        self.providers = tuple(recogniser.session.get_providers())

    def require_detector(self) -> None:
        if self._detector is None:
            raise self._pack.without_detector()

    def detect(self, photo: np.ndarray, size: int = DETECTOR_SIZE, min_score: float = MIN_SCORE) -> list[Face]:
        self.require_detector()
        with self._least_score(min_score):
            # A detector of fixed size has set its own; 0.7.3 would resize wrongly to another.
            fixed = isinstance(self._detector.session.get_inputs()[0].shape[2], int)
            boxes, keypoints = self._detector.detect(_bgr(photo), None if fixed else (size, size))
        if keypoints is None:
            raise FaceError("a face detector with key points", "one without", "Choose a pack with an SCRFD of five.")
        return [Face(box[:4], points, float(box[4])) for box, points in zip(boxes, keypoints)]

    def detect_all(self, photos: Sequence[np.ndarray]) -> list[list[Face]]:
        self.require_detector()
        with self._least_score(MIN_SCORE):  # for all: one of them would put it back while others are at work
            return super().detect_all(photos)

    @contextmanager
    def _least_score(self, score: float) -> Iterator[None]:
        before, self._detector.det_thresh = self._detector.det_thresh, score
        try:
            yield
        finally:
            self._detector.det_thresh = before

    def align(self, photo: np.ndarray, face: Face) -> np.ndarray:
        from insightface.utils.face_align import norm_crop

        # As `ArcFaceONNX.get` aligns, but for the order of the colours.
        return norm_crop(photo, face.keypoints.astype(np.float32), self._recogniser.input_size[0])

    @property
    def recogniser_file(self) -> RecogniserFile:
        model = self._recogniser
        return RecogniserFile(Path(model.model_file), model.input_size[0], model.input_mean, 1 / model.input_std)

    def embed_crops(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        rows = [np.zeros((0, self._recogniser.output_shape[1]), np.float32)]
        parts = batches(crops, self._recogniser.input_shape[0])
        return np.concatenate(rows + [self._recogniser.get_feat([_bgr(crop) for crop in part]) for part in parts])


def _bgr(photo: np.ndarray) -> np.ndarray:
    """insightface's models want blue first."""
    return np.ascontiguousarray(photo[:, :, ::-1])


def _require_insightface():
    try:
        from insightface.model_zoo import get_model
    except Exception as error:  # a compiled part for another numpy raises whatever it likes
        raise MissingPackageError(
            "insightface to be installed", f"{type(error).__name__}: {error}", "Install it, or do without it."
        ) from error
    return get_model
