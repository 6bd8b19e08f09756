"""Tiny face models that insightface and onnxruntime load and run, and drawn faces that the models find.

A drawn face has five saturated dots for its key points. The detector finds such dots by their colours; the
recogniser embeds the colours of skin and hair. Nothing is trained; to them nothing else looks like a face.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partialmethod
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

Color = tuple[int, int, int]  # RGB, 0…255

# ArcFace's template: x, y in pixels to which alignment brings the key points in a crop of 112 × 112:
# left eye, right eye, nose, left and right corner of the mouth, as seen in the picture.
CROP = 112
KEYPOINTS = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
DOT_COLORS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 0, 255], [0, 255, 255]])
NOSE = 2
# The parts of a face in the template's pixels: (center x, center y), (radius x, radius y).
HAIR = (56, 55), (48, 55)
SKIN = (56, 72), (42, 52)
DOT_RADII = (6, 6)
FACE_CENTER, FACE_WIDTH = np.array([56, 68]), 90

STRIDES = (8, 16, 32)
WINDOW = 32  # side of the detector's window in half strides
CELL = 8  # side of the recogniser's cells in pixels of the crop
EMBEDDING = 512
CLEARANCE = 3  # of a cell from edges in pixels of the crop
SHARPNESS = 1.2  # how fast the cosine of two faces falls with the distance of their colours


def write_face_pack(folder: Path) -> None:
    """Write `det_test.onnx` and `rec_test.onnx` into a folder, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    _detector().save(folder / "det_test.onnx")
    _recogniser().save(folder / "rec_test.onnx")


def draw_face(
    image: np.ndarray,
    center_x: float,
    center_y: float,
    size: float,
    angle: float = 0.0,
    skin: Color = (205, 150, 110),
    hair: Color = (60, 40, 30),
) -> np.ndarray:
    """Draw a face into an image, in place.

    Args:
        image: (H, W, 3), RGB, uint8.
        center_x: middle of the face in pixels.
        center_y: middle of the face in pixels.
        size: width of the face in pixels; the detector needs 40 at its own input size.
        angle: rotation in degrees, clockwise as seen.
        skin: colour of the skin; like `hair`, not near one of `DOT_COLORS`.
        hair: colour of the hair.

    Returns:
        (5, 2) x, y of the key points in pixels, in the order of `KEYPOINTS`.
    """
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    turn = np.array([[cos, -sin], [sin, cos]]) * size / FACE_WIDTH  # template → image
    center = np.array([center_x, center_y])
    rows, columns = np.indices(image.shape[:2])
    template = (np.stack([columns, rows], axis=-1) - center) @ np.linalg.inv(turn).T + FACE_CENTER
    image[_in_ellipse(template, *HAIR)] = hair
    image[_in_ellipse(template, *SKIN)] = skin
    for keypoint, color in zip(KEYPOINTS, DOT_COLORS):
        image[_in_ellipse(template, keypoint, DOT_RADII)] = color
    return (KEYPOINTS - FACE_CENTER) @ turn.T + center


def photo(
    width: int = 320, height: int = 240, faces: Iterable[Sequence] = ((160, 120, 100),), seed: int = 0
) -> np.ndarray:
    """A photo (height, width, 3), RGB, uint8: faces before a smooth random background.

    Args:
        width: in pixels.
        height: in pixels.
        faces: for each face, the arguments of `draw_face` after the image.
        seed: of the background.
    """
    # No channel comes near 0 or 255, so nothing in the background passes for a dot.
    colors = np.random.default_rng(seed).integers(60, 200, (4, 5, 3), dtype=np.uint8)
    image = np.array(Image.fromarray(colors).resize((width, height), Image.Resampling.BILINEAR))
    for face in faces:
        draw_face(image, *face)
    return image


def _in_ellipse(points: np.ndarray, center: Sequence[float], radii: Sequence[float]) -> np.ndarray:
    """Which of the points (…, 2) lie in an ellipse: (…) bool."""
    return (((points - center) / radii) ** 2).sum(-1) < 1


class _Value:
    """A value in a graph, (N, C, H, W) or (N, C), with arithmetic."""

    def __init__(self, graph: _Graph, name: str):
        self.graph, self.name = graph, name

    def apply(self, operator: str, *others: _Value | np.ndarray | float, **attributes) -> _Value:
        return self.graph.add(operator, self, *others, **attributes)

    __add__ = partialmethod(apply, "Add")
    __sub__ = partialmethod(apply, "Sub")
    __mul__ = partialmethod(apply, "Mul")
    __truediv__ = partialmethod(apply, "Div")
    __and__ = partialmethod(apply, "And")
    __lt__ = partialmethod(apply, "Less")
    __gt__ = partialmethod(apply, "Greater")
    __abs__ = partialmethod(apply, "Abs")

    def channels(self, indices: Sequence[int]) -> _Value:
        return self.apply("Gather", np.array(indices), axis=1)

    def min(self) -> _Value:
        """Over the channels, which stay as one."""
        return self.apply("ReduceMin", axes=[1])

    def max(self) -> _Value:
        """Over the channels, which stay as one."""
        return self.apply("ReduceMax", axes=[1])


class _Graph:
    """An ONNX graph under construction, with one float input."""

    def __init__(self, input_shape: Sequence[int | str]):
        self.input = _Value(self, "input")
        self._input = helper.make_tensor_value_info("input", TensorProto.FLOAT, input_shape)
        self._nodes, self._constants, self._outputs = [], [], []

    def add(self, operator: str, *inputs: _Value | np.ndarray | float, **attributes) -> _Value:
        names = [value.name if isinstance(value, _Value) else self._constant(value) for value in inputs]
        name = f"value_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, names, [name], **attributes))
        return _Value(self, name)

    def output(self, value: _Value, name: str, shape: Sequence[int | str]) -> None:
        self._nodes.append(helper.make_node("Identity", [value.name], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def save(self, path: Path) -> None:
        graph = helper.make_graph(self._nodes, "test", [self._input], self._outputs, self._constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        onnx.checker.check_model(model)
        onnx.save(model, path)

    def _constant(self, value: np.ndarray | float) -> str:
        """Whole numbers in an array are indices or a shape; all else is float32."""
        array = np.asarray(value)
        array = array.astype(np.int64 if array.ndim and array.dtype.kind == "i" else np.float32)
        self._constants.append(numpy_helper.from_array(array, f"constant_{len(self._constants)}"))
        return self._constants[-1].name


def _detector() -> _Graph:
    """Input (1, 3, H, W), RGB in -1…1; SCRFD's nine outputs: scores, boxes, key points of three strides."""
    graph = _Graph([1, 3, "height", "width"])
    # A pixel's product with a dot's colour is 3 where they are equal, and at most 1 on another dot.
    matches = graph.input.apply("Conv", (DOT_COLORS / 127.5 - 1)[:, :, None, None])
    dots = ((matches - 2.2) * 2.0).apply("Clip", 0.0, 1.0)
    levels = [_find_faces(dots, stride) for stride in STRIDES]
    for name, values, width in zip(("score", "bbox", "kps"), zip(*levels), (1, 4, 10)):
        for stride, value in zip(STRIDES, values):
            anchors = value.apply("Concat", value, axis=1)  # SCRFD has two at each place
            rows = anchors.apply("Transpose", perm=[0, 2, 3, 1]).apply("Reshape", np.array([-1, width]))
            graph.output(rows, f"{name}_{stride}", [f"anchors_{stride}", width])
    return graph


def _find_faces(dots: _Value, stride: int) -> tuple[_Value, _Value, _Value]:
    """Scores (1, 1, h, w), boxes (1, 4, h, w) and key points (1, 10, h, w), in strides from each anchor."""
    mass, x, y, variance = _moments(dots, stride)
    left, right, top, bottom = x.min(), x.max(), y.min(), y.max()
    size = (right - left).apply("Max", bottom - top)
    off_nose = abs(x.channels([NOSE])).apply("Max", abs(y.channels([NOSE])))
    complete = mass.min() > 0.15  # less is a speck
    alone = variance.max() < size * size * 0.03  # the same dot of two faces lies in two places
    uncut = abs(x).apply("Max", abs(y)).max() < 6.0  # the window reaches to 8
    found = complete & alone & uncut & (off_nose < 1.0)
    # The anchor nearest the nose scores best, so non-maximum suppression keeps it.
    score = found.apply("Cast", to=TensorProto.FLOAT) * (off_nose * -0.1 + 0.95)
    margin = size * 0.55
    box = (margin - left).apply("Concat", margin - top, right + margin, bottom + margin, axis=1)
    pairs = [axis + index for index in range(5) for axis in (0, 5)]
    return score, box, x.apply("Concat", y, axis=1).channels(pairs)


def _moments(dots: _Value, stride: int) -> tuple[_Value, _Value, _Value, _Value]:
    """Mass, mean x, mean y and variance of each dot in a window around each anchor: (1, 5, h, w) each.

    The unit is the stride; for the mass, a quarter of its square.
    """
    half, before = stride // 2, WINDOW // 2
    offsets = (np.arange(WINDOW) - (WINDOW - 1) / 2) / 2  # anchors lie on the cells' corners
    x, y = np.meshgrid(offsets, offsets)
    weights = np.tile(np.stack([np.ones_like(x), x, y, x**2 + y**2])[:, None], (5, 1, 1, 1))
    cells = dots.apply("AveragePool", kernel_shape=[half] * 2, strides=[half] * 2)
    pads = [before, before, before - 2, before - 2]
    sums = cells.apply("Conv", weights, group=5, strides=[2, 2], pads=pads)
    mass, sum_x, sum_y, sum_squares = (sums.channels(range(moment, 20, 4)) for moment in range(4))
    divisor = mass.apply("Max", 1e-6)
    mean_x, mean_y = sum_x / divisor, sum_y / divisor
    return mass, mean_x, mean_y, sum_squares / divisor - mean_x * mean_x - mean_y * mean_y


def _recogniser(seed: int = 0) -> _Graph:
    """Input (N, 3, 112, 112), RGB in -1…1; output (N, 512), random Fourier features of the cells' colours.

    The cosine of two faces falls with the distance of their colours as a Gaussian does.
    """
    graph, random = _Graph(["None", 3, CROP, CROP]), np.random.default_rng(seed)
    plain = np.flatnonzero([_plain_cells()] * 3)
    cells = graph.input.apply("AveragePool", kernel_shape=[CELL] * 2, strides=[CELL] * 2)
    colors = cells.apply("Flatten").channels(plain)
    phases = colors.apply("MatMul", random.normal(0, SHARPNESS, (len(plain), EMBEDDING)))
    features = (phases + random.uniform(0, 2 * np.pi, EMBEDDING)).apply("Cos")
    graph.output(features, "embedding", ["None", EMBEDDING])
    return graph


def _plain_cells() -> np.ndarray:
    """Which cells of an aligned crop lie in skin or hair, clear of all else: (14, 14) bool.

    The others tell photos and sizes apart, not people, by the background or by edges that blur when small.
    """
    skin, hair = 1, 2
    face = np.zeros((CROP, CROP, 3), np.uint8)
    draw_face(face, *FACE_CENTER, FACE_WIDTH, skin=(skin,) * 3, hair=(hair,) * 3)
    around = (CELL + 2 * CLEARANCE,) * 2
    cells = np.lib.stride_tricks.sliding_window_view(np.pad(face[:, :, 0], CLEARANCE), around)[::CELL, ::CELL]
    return (cells == skin).all(axis=(2, 3)) | (cells == hair).all(axis=(2, 3))
