"""The face models on onnxruntime alone, with insightface's results: SCRFD (arXiv 2105.04714) and ArcFace."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .align import align, resize
from .face import DETECTOR_SIZE, MIN_SCORE, Face, FaceEngine, RecogniserFile
from .onnx_file import normalises
from .packs import FacePack, choose_providers, load_models, require_onnxruntime

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

MAX_OVERLAP = 0.4  # of two boxes; above it the less certain one is the same face


class OnnxEngine(FaceEngine):
    """A face model pack, loaded by onnxruntime.

    Args:
        pack: a folder with a detector (five key points) and an ArcFace recogniser, or a recogniser's file.
        provider: one of `PROVIDER_CHOICES`; "auto" uses the first available.

    Raises:
        MissingPackageError: onnxruntime is not installed.
        FaceError: the pack is incomplete, or the provider is not available.
    """

    def __init__(self, pack: FacePack, provider: str = "auto"):
        onnxruntime, providers = require_onnxruntime(), choose_providers(provider)

        def load(path: Path) -> tuple[str, object]:
            session = onnxruntime.InferenceSession(str(path), providers=providers)
            if len(session.get_outputs()) in (9, 15):
                return "detection", Detector(session)
            if _is_recogniser(session):
                mean, scale = (0.0, 1.0) if normalises(path) else (127.5, 1 / 127.5)
                return "recognition", (session, RecogniserFile(path, session.get_inputs()[0].shape[2], mean, scale))
            return "unknown", None

        models = load_models(pack, load)
        self._detector = models.get("detection")
        self._recogniser, self._file = models["recognition"]
        self.require_width(self._recogniser.get_outputs()[0].shape[1])
        self._pack_name, self._batch_size = pack.name, self._recogniser.get_inputs()[0].shape[0]
        self.providers = tuple(self._recogniser.get_providers())

    def detect(self, photo: np.ndarray, size: int = DETECTOR_SIZE, min_score: float = MIN_SCORE) -> list[Face]:
        self.require_detector()
        return self._detector.detect(photo, size, min_score)

    def align(self, photo: np.ndarray, face: Face) -> np.ndarray:
        return align(photo, face.keypoints, self._file.side)

    @property
    def recogniser_file(self) -> RecogniserFile:
        return self._file

    def _embed(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        blob = (np.stack(crops).astype(np.float32) - np.float32(self._file.mean)) * np.float32(self._file.scale)
        return self._recogniser.run(None, {self._recogniser.get_inputs()[0].name: blob.transpose(0, 3, 1, 2)})[0]


class Detector:
    """SCRFD with five key points: for each stride, scores, boxes and key points around each anchor."""

    def __init__(self, session: InferenceSession):
        self.session = session
        outputs = session.get_outputs()
        self._strides = (8, 16, 32) if len(outputs) == 9 else (8, 16, 32, 64, 128)
        self._anchors = 2 if len(outputs) == 9 else 1  # per place
        self._batched = len(outputs[0].shape) == 3
        height, width = session.get_inputs()[0].shape[2:]
        self._fixed = (width, height) if isinstance(width, int) and isinstance(height, int) else None

    def detect(self, photo: np.ndarray, size: int, min_score: float) -> list[Face]:
        width, height = self._fixed or (size, size)
        canvas, scale = _fit(photo, width, height)
        blob = (canvas.astype(np.float32) - 127.5) * np.float32(1 / 128)
        outputs = self.session.run(None, {self.session.get_inputs()[0].name: blob.transpose(2, 0, 1)[None]})
        outputs = [output[0] for output in outputs] if self._batched else outputs
        count = len(self._strides)
        of_strides = zip(outputs[:count], outputs[count : 2 * count], outputs[2 * count :], self._strides)
        decoded = [self._decode(*of_stride, width, min_score) for of_stride in of_strides]
        scores, boxes, keypoints = map(np.concatenate, zip(*decoded))
        order = np.argsort(-scores, kind="stable")
        scores, boxes, keypoints = scores[order], boxes[order] / scale, keypoints[order] / scale
        return [Face(boxes[i], keypoints[i], float(scores[i])) for i in suppress(boxes)]

    def _decode(
        self, scores: np.ndarray, boxes: np.ndarray, keypoints: np.ndarray, stride: int, width: int, min_score: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Scores (N,), boxes (N, 4) and key points (N, 5, 2) of a stride, in pixels of the detector's input."""
        rows = np.flatnonzero(scores.ravel() >= min_score)
        place = rows // self._anchors
        anchors = np.stack([place % (width // stride), place // (width // stride)], axis=-1).astype(np.float32) * stride
        distances = boxes[rows] * stride
        corners = np.concatenate([anchors - distances[:, :2], anchors + distances[:, 2:]], axis=1)
        return scores.ravel()[rows], corners, anchors[:, None] + (keypoints[rows] * stride).reshape(-1, 5, 2)


def suppress(boxes: np.ndarray) -> list[int]:
    """Non-maximum suppression: rows of the boxes (N, 4), best first, that overlap no better box."""
    left, top, right, bottom = boxes.T
    areas = (right - left + 1) * (bottom - top + 1)
    rest, kept = np.arange(len(boxes)), []
    while rest.size:
        best, rest = rest[0], rest[1:]
        kept.append(int(best))
        width = np.minimum(right[best], right[rest]) - np.maximum(left[best], left[rest]) + 1
        height = np.minimum(bottom[best], bottom[rest]) - np.maximum(top[best], top[rest]) + 1
        shared = np.maximum(0.0, width) * np.maximum(0.0, height)
        rest = rest[shared / (areas[best] + areas[rest] - shared) <= MAX_OVERLAP]
    return kept


def _fit(photo: np.ndarray, width: int, height: int) -> tuple[np.ndarray, float]:
    """The photo in the upper left of a black image (height, width, 3), and its scale."""
    ratio = photo.shape[0] / photo.shape[1]
    fitted = (int(height / ratio), height) if ratio > height / width else (width, int(width * ratio))
    canvas = np.zeros((height, width, 3), np.uint8)
    canvas[: fitted[1], : fitted[0]] = resize(photo, *fitted)
    return canvas, fitted[1] / photo.shape[0]


def _is_recogniser(session: InferenceSession) -> bool:
    shape, outputs = session.get_inputs()[0].shape, session.get_outputs()
    side = shape[2] if len(shape) == 4 and shape[2] == shape[3] and isinstance(shape[2], int) else 0
    # Landmark models have 192 pixels.
    return len(outputs) == 1 and side != 192 and side >= 112 and (side % 112 == 0 or side % 128 == 0)
