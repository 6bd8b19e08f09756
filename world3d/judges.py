"""Judges of likeness that others trained on photographs of real people, out of ordinary packages.

| judge | from | declared licence | gives |
|---|---|---|---|
| PackJudge | the face model pack of `tools/real_faces.py` | MIT | faces; 512 values at 112 pixels |
| DlibJudge | PyPI dlib-bin; the models in PyPI face-recognition-models 0.3.0 | CC0 | 128 values |
| HseJudge | npm @vladmandic/human 3.3.6 (HSE FaceRes) | MIT | 1024 values at 224 pixels |

Pictures are RGB arrays (H, W, 3) of bytes; key points are (5, 2) in pixels: eyes, nose, corners of the mouth.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from idea_core.faces.face import Face
from idea_core.faces.onnx_engine import OnnxEngine
from idea_core.faces.packs import FacePack

SHOWN, MARGIN = 320, 40  # pixels that a picture is enlarged to, and of its own edge repeated around it
TEMPLATE = np.array(  # ArcFace's, in 112 pixels
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float32
)
HSE_TEMPLATE = ((TEMPLATE - [56, 56]) * 0.72 + [56, 60]).astype(np.float32)  # wider than ArcFace's crop


def shown(picture: np.ndarray) -> np.ndarray:
    """A small picture as the judges look at it: enlarged, with a margin."""
    large = cv2.resize(picture, (SHOWN, SHOWN), interpolation=cv2.INTER_CUBIC)
    return cv2.copyMakeBorder(large, *[MARGIN] * 4, cv2.BORDER_REPLICATE)


class PackJudge:
    """The detector and recogniser of a face model pack, through the pack's own engine."""

    def __init__(self, folder: Path):
        self.engine = OnnxEngine(FacePack(folder.name, folder), "cpu")

    def find(self, picture: np.ndarray) -> Face | None:
        """The largest face."""
        return max(self.engine.detect(picture), key=lambda face: face.area, default=None)

    def embed(self, picture: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
        box = np.array([*keypoints.min(0), *keypoints.max(0)])
        return self.engine.embed(picture, Face(box, keypoints, 1.0))


class DlibJudge:
    """dlib's ResNet-29 on its own crop around five points of dlib's predictor."""

    def __init__(self, folder: Path):
        import dlib

        self._box = dlib.rectangle
        self._net = dlib.face_recognition_model_v1(str(folder / "dlib_face_recognition_resnet_model_v1.dat"))
        self._points = dlib.shape_predictor(str(folder / "shape_predictor_5_face_landmarks.dat"))

    def embed(self, picture: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
        """(128,); the predictor starts from a box as dlib's detectors would draw it around the key points."""
        size = float(np.linalg.norm(keypoints[1] - keypoints[0])) * 2.6
        left, top = keypoints.mean(0) - [size / 2, size * 0.52]
        box = self._box(int(left), int(top), int(left + size), int(top + size))
        return np.array(self._net.compute_face_descriptor(picture, self._points(picture, box)))


class HseJudge:
    """HSE FaceRes: a graph of TensorFlow.js, run by torch."""

    RESULT = "global_pooling/Mean"

    def __init__(self, folder: Path, name: str = "faceres"):
        manifest = json.loads((folder / f"{name}.json").read_text("utf-8"))
        self._weights = _tfjs_weights(manifest["weightsManifest"][0]["weights"], (folder / f"{name}.bin").read_bytes())
        self._nodes = {node["name"]: node for node in manifest["modelTopology"]["node"]}

    @torch.no_grad()
    def embed(self, picture: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
        matrix, _ = cv2.estimateAffinePartial2D(keypoints.astype(np.float32), HSE_TEMPLATE * 2, method=cv2.LMEDS)
        crop = cv2.warpAffine(picture, matrix, (224, 224), flags=cv2.INTER_LINEAR).astype(np.float32)
        known = {}
        return self._value(self.RESULT, torch.from_numpy(crop.transpose(2, 0, 1)[None].copy()), known)[0].numpy()

    def _value(self, name: str, pictures: Tensor, known: dict[str, Tensor]) -> Tensor:
        name = name.split(":")[0].lstrip("^")
        if name not in known:
            node = self._nodes[name]
            inputs = [] if node["op"] == "Const" else node.get("input", [])
            known[name] = self._run(node, [self._value(entry, pictures, known) for entry in inputs], pictures)
        return known[name]

    def _run(self, node: dict, inputs: Sequence[Tensor], pictures: Tensor) -> Tensor:
        kind = node["op"]
        if kind == "Const":
            return self._weights[node["name"]]
        if kind == "Placeholder":
            return pictures
        if kind in ("Conv2D", "DepthwiseConv2dNative"):
            return _convolve(node, *inputs)
        if kind == "Relu":
            return inputs[0].relu()
        if kind == "Mean":
            return inputs[0].mean((2, 3))
        pairs = {"Add": torch.add, "AddV2": torch.add, "Mul": torch.mul, "Minimum": torch.minimum}
        pairs["Maximum"] = torch.maximum
        if kind not in pairs:
            raise NotImplementedError(f"expected one of FaceRes's operations, got {kind}; use @vladmandic/human 3.3.6")
        return pairs[kind](*(value.view(1, -1, 1, 1) if value.dim() == 1 else value for value in inputs))


def _tfjs_weights(entries: Sequence[dict], data: bytes) -> dict[str, Tensor]:
    """Weights by name, from a TensorFlow.js file, with its quantised ones in float32."""
    weights, at = {}, 0
    for entry in entries:
        quantised = entry.get("quantization", {})
        kind = np.dtype(quantised.get("dtype", entry["dtype"]))
        count = int(np.prod(entry["shape"])) if entry["shape"] else 1
        value = np.frombuffer(data, kind, count, at).reshape(entry["shape"])
        at += count * kind.itemsize
        if "scale" in quantised:
            value = value.astype(np.float32) * quantised["scale"] + quantised["min"]
        weights[entry["name"]] = torch.tensor(value.astype(np.int64 if value.dtype.kind == "i" else np.float32))
    if at != len(data):
        raise ValueError(f"expected {at} bytes of weights, got {len(data)}; use @vladmandic/human 3.3.6")
    return weights


def _convolve(node: dict, x: Tensor, weight: Tensor) -> Tensor:
    deep = node["op"] == "DepthwiseConv2dNative"
    stride = int(node["attr"]["strides"]["list"]["i"][1])
    if base64.b64decode(node["attr"]["padding"]["s"]) == b"SAME":
        total = [max((-(-side // stride) - 1) * stride + weight.shape[0] - side, 0) for side in x.shape[2:]]
        x = pad(x, (total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2))
    kernel = weight.permute(2, 3, 0, 1) if deep else weight.permute(3, 2, 0, 1)
    return conv2d(x, kernel, stride=stride, groups=weight.shape[2] if deep else 1)


def verification(embeds: np.ndarray, who: np.ndarray, rates: Sequence[float] = (0.01, 0.001)) -> dict[str, float]:
    """Mean cosines of pairs of embeddings (N, d) of people (N,), and true accepts at rates of false ones."""
    rows = embeds / np.linalg.norm(embeds, axis=1, keepdims=True)
    cosines, upper = rows @ rows.T, np.triu(np.ones((len(rows), len(rows)), bool), 1)
    same = who[:, None] == who[None]
    mates, strangers = cosines[upper & same], cosines[upper & ~same]
    result = {"same": float(mates.mean()), "other": float(strangers.mean())}
    for rate in rates:
        result[f"TAR@{rate:g}"] = float((mates > np.quantile(strangers, 1 - rate)).mean())
    return {key: round(value, 4) for key, value in result.items()}


def cosines(first: np.ndarray, second: np.ndarray) -> float:
    """Mean cosine of rows (N, d); rows without a face, of no number, are 0."""
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return round(float(np.nan_to_num((first * second).sum(1) / lengths).mean()), 4)
