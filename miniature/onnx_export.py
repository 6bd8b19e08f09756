"""The face networks as ONNX files that insightface loads: an SCRFD detector and an ArcFace recogniser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from .align import CROP
from .face_nets import POOL, fold_norms
from .render import SIZE

OPSET = 13
DETECTOR_SIZE = 640
STRIDES, ANCHORS = (8, 16, 32), 2


class _Graph:
    """Builds a network. Weights are stored in half precision and cast when loaded."""

    def __init__(self, size: int):
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.input = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, size, size])

    def add(self, kind: str, *inputs: str, outputs: int = 1, **attributes) -> str:
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, value) -> str:
        """A weight or a number; whole numbers stay 64 bits wide."""
        value = np.asarray(value)
        whole = np.issubdtype(value.dtype, np.integer)
        name = f"weight_{len(self.weights)}"
        kept = value.astype(np.int64 if whole else np.float16)
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(kept), name))
        return name if whole else self.add("Cast", name, to=TensorProto.FLOAT)

    def layers(self, start: str, layers: list[nn.Module]) -> str:
        value = start
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                weight, bias = self.constant(layer.weight.detach().numpy()), self.constant(layer.bias.detach().numpy())
                options = {"strides": list(layer.stride), "pads": [layer.padding[0]] * 4}
                value = self.add("Conv", value, weight, bias, kernel_shape=list(layer.kernel_size), **options)
            elif isinstance(layer, nn.Linear):
                weight, bias = self.constant(layer.weight.detach().numpy()), self.constant(layer.bias.detach().numpy())
                value = self.add("Gemm", value, weight, bias, transB=1)
            elif isinstance(layer, nn.Flatten):
                value = self.add("Flatten", value)
            elif isinstance(layer, nn.ReLU):
                value = self.add("Relu", value)
            else:
                raise TypeError(type(layer).__name__)
        return value

    def save(self, path: Path, outputs: dict[str, tuple[str, list[int]]]) -> None:
        """Write the model; `outputs`: name → (value, shape)."""
        names = [self.add_output(name, value) for name, (value, _) in outputs.items()]
        infos = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, (_, shape) in zip(names, outputs.values())
        ]
        graph = helper.make_graph(self.nodes, path.stem, [self.input], infos, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
        onnx.checker.check_model(model)
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(model, path)

    def add_output(self, name: str, value: str) -> str:
        self.nodes.append(helper.make_node("Identity", [value], [name], name=f"output_{name}"))
        return name


def save_recogniser(net: nn.Sequential, path: Path) -> None:
    """Input (1, 3, 112, 112) in −1…1, output (1, 512)."""
    graph = _Graph(CROP)
    halved = graph.add("AveragePool", "input", kernel_shape=[POOL, POOL], strides=[POOL, POOL])
    graph.save(path, {"embedding": (graph.layers(halved, fold_norms(net)), [1, 512])})


def save_detector(net: nn.Sequential, path: Path) -> None:
    """Input (1, 3, 640, 640); SCRFD's nine outputs. The middle anchor of stride 32 holds the one face."""
    graph = _Graph(DETECTOR_SIZE)
    factor = DETECTOR_SIZE // SIZE
    small = graph.add("AveragePool", "input", kernel_shape=[factor] * 2, strides=[factor] * 2)
    output = graph.layers(small, fold_norms(net))
    stride = STRIDES[-1]
    cells = DETECTOR_SIZE // stride
    anchor = (cells // 2 * cells + cells // 2) * ANCHORS
    center = cells // 2 * stride / DETECTOR_SIZE * 2 - 1  # in −1…1
    in_strides = DETECTOR_SIZE / 2 / stride
    axes = graph.constant(np.array([1]))

    def part(begin: int, end: int) -> str:
        return graph.add("Slice", output, graph.constant(np.array([begin])), graph.constant(np.array([end])), axes)

    signs = graph.constant(np.array([[-1.0, -1.0, 1.0, 1.0]]))
    middle, scale = graph.constant(np.array([[center]])), graph.constant(np.array([[in_strides]]))
    score = graph.add("Sigmoid", part(0, 1))
    box = graph.add("Mul", graph.add("Mul", graph.add("Sub", part(1, 5), middle), signs), scale)
    points = graph.add("Mul", graph.add("Sub", part(5, 15), middle), scale)

    def spread(value: str, width: int) -> tuple[str, list[int]]:
        """The value at its anchor, zero at the others."""
        count = cells * cells * ANCHORS
        before = graph.constant(np.zeros((anchor, width)))
        after = graph.constant(np.zeros((count - anchor - 1, width)))
        return graph.add("Concat", before, value, after, axis=0), [count, width]

    def nothing(stride: int, width: int) -> tuple[str, list[int]]:
        count = (DETECTOR_SIZE // stride) ** 2 * ANCHORS
        return graph.constant(np.zeros((count, width))), [count, width]

    outputs = {}
    for kind, value, width in (("score", score, 1), ("box", box, 4), ("points", points, 10)):
        for other in STRIDES[:-1]:
            outputs[f"{kind}_{other}"] = nothing(other, width)
        outputs[f"{kind}_{stride}"] = spread(value, width)
    graph.save(path, outputs)


@torch.no_grad()
def run_folded(net: nn.Sequential, pictures: torch.Tensor) -> torch.Tensor:
    """Output of the saved network, for a check."""
    return nn.Sequential(*fold_norms(net))(pictures)
