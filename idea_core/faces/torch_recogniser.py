"""A face recogniser in torch, read from its ONNX file, since onnxruntime gives no gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import FaceError, MissingPackageError
from .align import template
from .face import RecogniserFile
from .onnx_file import fault_in
from .packs import reason_of, unusable_model

if TYPE_CHECKING:
    from onnx import ModelProto

_Attributes = Mapping[str, Any]  # of an ONNX node


class TorchRecogniser(nn.Module):
    """The network of an ONNX file, frozen.

    Raises:
        MissingPackageError: onnx is not installed.
        FaceError: the file cannot be opened, or has operations that ArcFace recognisers do not have.
    """

    def __init__(self, file: RecogniserFile):
        super().__init__()
        model = _load(file.path)
        from onnx import helper, numpy_helper

        self.file = file
        constants = {weight.name: weight for weight in model.graph.initializer}
        self._nodes: list[tuple[str, Sequence[str], str, _Attributes]] = []  # operation, inputs, output, attributes
        for node in model.graph.node:
            attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
            if node.op_type == "Constant":
                constants[node.output[0]] = attributes["value"]
            else:
                self._nodes.append((node.op_type, tuple(node.input), node.output[0], attributes))
        unknown = sorted({kind for kind, *_ in self._nodes} - _OPERATIONS.keys())
        if unknown:
            raise FaceError(
                f"a recogniser of operations {', '.join(sorted(_OPERATIONS))}",
                f"{', '.join(unknown)} in {file.path.name}",
                "Choose another face model pack, or train without the likeness loss.",
            )
        self._constants: dict[str, str] = {}  # names in the file → those of buffers
        for number, (name, value) in enumerate(constants.items()):
            tensor = torch.from_numpy(numpy_helper.to_array(value).copy())
            self.register_buffer(f"constant_{number}", tensor.float() if tensor.is_floating_point() else tensor)
            self._constants[name] = f"constant_{number}"
        self._input = next(entry.name for entry in model.graph.input if entry.name not in constants)
        self._output = model.graph.output[0].name

    def forward(self, crops: Tensor) -> Tensor:
        """Embeddings (B, 512), not normalised, of crops (B, 3, S, S), RGB, in 0…1."""
        values = {name: getattr(self, buffer) for name, buffer in self._constants.items()}
        values[self._input] = (crops * 255 - self.file.mean) * self.file.scale
        for kind, inputs, output, attributes in self._nodes:
            values[output] = _OPERATIONS[kind](attributes, *(values[name] if name else None for name in inputs))
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


def _load(path: Path) -> ModelProto:
    """The model in a file, with an input and an output."""
    try:
        import onnx
    except ImportError:
        raise MissingPackageError("onnx to be installed", "none", "Install it: pip install onnx.") from None
    fault = fault_in(path)
    if not fault:
        try:
            model = onnx.load(str(path))
            fault = "" if model.graph.input and model.graph.output else "a network without input or output"
        except MemoryError:
            raise
        except Exception as error:  # protobuf and onnx raise their own
            fault = reason_of(error)
    if fault:
        raise unusable_model("recognition", path, f"{fault} there", f"Copy or download {path.name} again.")
    return model


def _padded(attributes: _Attributes, x: Tensor) -> Tensor:
    """The images with an operation's padding: top, left, bottom, right."""
    mode = attributes.get("auto_pad", b"NOTSET").decode()
    if mode not in ("NOTSET", "VALID"):
        raise FaceError("a recogniser with explicit padding", mode, "Choose another face model pack.")
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    return functional.pad(x, (left, right, top, bottom)) if top or left or bottom or right else x


def _average(attributes: _Attributes, x: Tensor) -> Tensor:
    stride = tuple(attributes.get("strides", (1, 1)))
    return functional.avg_pool2d(_padded(attributes, x), tuple(attributes["kernel_shape"]), stride)


def _convolve(attributes: _Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    stride, dilation = (tuple(attributes.get(name, (1, 1))) for name in ("strides", "dilations"))
    x, groups = _padded(attributes, x), attributes.get("group", 1)
    return functional.conv2d(x, weight, bias, stride, dilation=dilation, groups=groups)


def _gemm(attributes: _Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    x, weight = (x.T if attributes.get("transA") else x), (weight.T if attributes.get("transB") else weight)
    product = attributes.get("alpha", 1.0) * (x @ weight)
    return product if bias is None else product + attributes.get("beta", 1.0) * bias


def _normalise(
    attributes: _Attributes, x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, variance: Tensor
) -> Tensor:
    return functional.batch_norm(x, mean, variance, scale, shift, eps=attributes.get("epsilon", 1e-5))


def _reshape(_: _Attributes, x: Tensor, shape: Tensor) -> Tensor:
    """The first axis is the batch, whose size is 1 in files."""
    sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(shape.tolist())]
    return x.reshape(len(x), *sizes[1:])


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
    "Gemm": _gemm,
    "GlobalAveragePool": lambda _, x: x.mean((2, 3), keepdim=True),
    "Identity": lambda _, x: x,
    "MatMul": lambda _, x, y: x @ y,
    "Mul": lambda _, x, y: x * y,
    "PRelu": lambda _, x, slope: torch.where(x < 0, x * slope, x),  # slope (C, 1, 1), or (C,) for flat images
    "Relu": lambda _, x: x.relu(),
    "Reshape": _reshape,
    "Sigmoid": lambda _, x: x.sigmoid(),
    "Sub": lambda _, x, y: x - y,
}
