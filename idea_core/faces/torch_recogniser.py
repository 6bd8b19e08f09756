"""A face recogniser in torch, read from its ONNX file: onnxruntime gives no gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import FaceError, MissingPackageError
from .align import template
from .face import RecogniserFile
from .onnx_file import fault_in
from .packs import reason_of, unusable_model


class TorchRecogniser(nn.Module):
    """The network of an ONNX file, frozen.

    Raises:
        MissingPackageError: onnx is not installed.
        FaceError: the file cannot be opened, or has operations of other kinds than ArcFace recognisers have.
    """

    def __init__(self, file: RecogniserFile):
        super().__init__()
        onnx = _require_onnx()
        model = _load(onnx, file.path)
        self.file = file
        constants = {weight.name: weight for weight in model.graph.initializer}
        self._nodes = []
        for node in model.graph.node:
            attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
            if node.op_type == "Constant":
                constants[node.output[0]] = attributes["value"]
            else:
                self._nodes.append(_Node(node.op_type, tuple(node.input), tuple(node.output), attributes))
        unknown = sorted({node.kind for node in self._nodes} - _OPERATIONS.keys())
        if unknown:
            raise FaceError(
                f"a recogniser of operations {', '.join(sorted(_OPERATIONS))}",
                f"{', '.join(unknown)} in {file.path.name}",
                "Choose another face model pack, or train without the likeness loss.",
            )
        self._constants: dict[str, str] = {}  # names in the file → those of buffers
        for number, (name, value) in enumerate(constants.items()):
            tensor = torch.from_numpy(onnx.numpy_helper.to_array(value).copy())
            self.register_buffer(f"constant_{number}", tensor.float() if tensor.is_floating_point() else tensor)
            self._constants[name] = f"constant_{number}"
        self._input = next(entry.name for entry in model.graph.input if entry.name not in constants)
        self._output = model.graph.output[0].name

    def forward(self, crops: Tensor) -> Tensor:
        """Embeddings (B, 512), not normalised, of crops (B, 3, S, S), RGB, in 0…1."""
        values = {name: getattr(self, buffer) for name, buffer in self._constants.items()}
        values[self._input] = (crops * 255 - self.file.mean) * self.file.scale
        for node in self._nodes:
            inputs = [values[name] if name else None for name in node.inputs]
            values[node.outputs[0]] = _OPERATIONS[node.kind](node.attributes, *inputs)
        return values[self._output]

    def embed(self, images: Tensor, keypoints: Tensor) -> Tensor:
        """L2-normalised embeddings (B, 512), differentiable in the images.

        Args:
            images: (B, H, W, 3), RGB, in 0…1.
            keypoints: (B, 5, 2) x, y in pixels of the faces in them.
        """
        return functional.normalize(self(crop_faces(images, keypoints, self.file.side)), dim=1)


def crop_faces(images: Tensor, keypoints: Tensor, side: int) -> Tensor:
    """Crops (B, 3, side, side) in which the key points lie on ArcFace's template; black beyond the image.

    Args:
        images: (B, H, W, 3), differentiable.
        keypoints: (B, 5, 2) x, y in pixels.
    """
    goal = torch.from_numpy(template(side)).to(keypoints)
    goal_mean, mean = goal.mean(0), keypoints.mean(1)
    goal, points = goal - goal_mean, keypoints - mean[:, None]
    # The similarity transform image → crop with the least squared error at the key points, as a complex factor …
    power = points.square().sum((1, 2))
    real = (points * goal).sum((1, 2)) / power
    imaginary = (points[..., 0] * goal[:, 1] - points[..., 1] * goal[:, 0]).sum(1) / power
    # … and its inverse, since each pixel of the crop asks where it comes from.
    size = real.square() + imaginary.square()
    real, imaginary = (real / size).view(-1, 1, 1), (-imaginary / size).view(-1, 1, 1)
    axis = torch.arange(side, dtype=keypoints.dtype, device=keypoints.device)
    y, x = torch.meshgrid(axis - goal_mean[1], axis - goal_mean[0], indexing="ij")
    across = real * x - imaginary * y + mean[:, 0].view(-1, 1, 1)
    down = imaginary * x + real * y + mean[:, 1].view(-1, 1, 1)
    height, width = images.shape[1:3]
    grid = torch.stack([(2 * across + 1) / width - 1, (2 * down + 1) / height - 1], dim=-1)
    return functional.grid_sample(images.movedim(-1, 1), grid.to(images.dtype), align_corners=False)


@dataclass(frozen=True)
class _Node:
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


def _require_onnx():
    try:
        import onnx
        import onnx.numpy_helper
    except ImportError:
        raise MissingPackageError("onnx to be installed", "none", "Install it: pip install onnx.") from None
    return onnx


def _load(onnx, path: Path):
    """The model in a file, with an input and an output.

    Raises:
        FaceError: the file cannot be opened.
    """
    fault = fault_in(path)
    if not fault:
        try:
            model = onnx.load(str(path))
            fault = "" if model.graph.input and model.graph.output else "a network without input or output"
        except MemoryError:
            raise
        except Exception as error:  # protobuf's and onnx's own
            fault = reason_of(error)
    if fault:
        got, remedy = f"{fault} there", f"Copy or download {path.name} again."
        raise unusable_model("recognition", path, got, remedy)
    return model


def _padded(attributes: Mapping[str, Any], x: Tensor) -> Tensor:
    """Pictures with the margins that an operation wants: top, left, bottom, right."""
    told = attributes.get("auto_pad", b"NOTSET").decode()
    if told not in ("NOTSET", "VALID"):
        raise FaceError("a recogniser that says its margins", told, "Choose another face model pack.")
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    return functional.pad(x, (left, right, top, bottom)) if top or left or bottom or right else x


def _convolve(attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    options = {
        "stride": tuple(attributes.get("strides", (1, 1))),
        "dilation": tuple(attributes.get("dilations", (1, 1))),
    }
    return functional.conv2d(_padded(attributes, x), weight, bias, groups=attributes.get("group", 1), **options)


def _normalise(attributes, x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    return functional.batch_norm(x, mean, variance, scale, shift, eps=attributes.get("epsilon", 1e-5))


def _multiply_out(attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    x, weight = (x.T if attributes.get("transA") else x), (weight.T if attributes.get("transB") else weight)
    found = attributes.get("alpha", 1.0) * (x @ weight)
    return found if bias is None else found + attributes.get("beta", 1.0) * bias


def _reshape(_said, x: Tensor, shape: Tensor) -> Tensor:
    """The first place is the batch's, for which files say 1."""
    wanted: Sequence[int] = [x.shape[place] if size == 0 else size for place, size in enumerate(shape.tolist())]
    return x.reshape(len(x), *wanted[1:])


def _rectify(_said, x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, x * slope, x)  # the slope is (C, 1, 1), or (C,) after the pictures are flat


def _average(attributes, x: Tensor) -> Tensor:
    return functional.avg_pool2d(
        _padded(attributes, x), tuple(attributes["kernel_shape"]), tuple(attributes.get("strides", (1, 1)))
    )


_OPERATIONS: Mapping[str, Callable[..., Tensor]] = {
    "Add": lambda _, x, y: x + y,
    "AveragePool": _average,
    "BatchNormalization": _normalise,
    "Cast": lambda _, x: x,
    "Conv": _convolve,
    "Cos": lambda _, x: x.cos(),
    "Div": lambda _, x, y: x / y,
    "Dropout": lambda _, x, *__: x,
    "Flatten": lambda attributes, x: x.flatten(attributes.get("axis", 1)),
    "Gather": lambda attributes, x, places: x.index_select(attributes.get("axis", 0), places),
    "Gemm": _multiply_out,
    "GlobalAveragePool": lambda _, x: x.mean((2, 3), keepdim=True),
    "Identity": lambda _, x: x,
    "MatMul": lambda _, x, y: x @ y,
    "Mul": lambda _, x, y: x * y,
    "PRelu": _rectify,
    "Relu": lambda _, x: x.relu(),
    "Reshape": _reshape,
    "Sigmoid": lambda _, x: x.sigmoid(),
    "Sub": lambda _, x, y: x - y,
}
