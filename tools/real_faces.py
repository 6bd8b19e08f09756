"""Fetch face networks that others trained on photographs of real people, out of ordinary packages.

    python tools/real_faces.py work/faces

| what it writes | out of | declared licence |
|---|---|---|
| `faceplugin/det.onnx`, `rec.onnx`: a face model pack | npm faceplugin-face-recognition-js 0.0.1 | MIT |
| `hse/faceres.json`, `.bin`: a recogniser for `world3d.judges` | npm @vladmandic/human 3.3.6 | MIT |
| `dlib/*.dat`: a recogniser for `world3d.judges` | PyPI face-recognition-models 0.3.0 | CC0 |

The pack's recogniser (112 pixels, 512 values) is used as it is.  Its detector finds boxes, and a second network 68
points.  Here both become one graph with SCRFD's nine outputs: boxes, NonMaxSuppression, RoiAlign, points, five of them.
A package's licence is not that of the photographs its networks were trained on: fetch them, do not ship them.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper, version_converter

DETECTOR, POINTS, RECOGNISER = "fr_detect.onnx", "fr_landmark.onnx", "fr_feature.onnx"
SIDE, WIDE, HIGH, OPSET = 640, 320, 240, 12  # pixels of our input, and of the detector's
FIVE = ((37, 38, 40, 41), (43, 44, 46, 47), (30,), (48, 60), (54, 64))  # which of 68 points are eyes, nose, mouth
STRIDES = (8, 16, 32)
CERTAIN, OVERLAP, MOST = 0.3, 0.3, 16  # of boxes: least score, largest overlap, number
GRAY = np.array([0.299, 0.587, 0.114]).reshape(1, 3, 1, 1)


@dataclass(frozen=True)
class Package:
    """A package's archive, and the files of it that are wanted.

    Attributes:
        name: what npm or pip is asked for; npm: which of the two.
        archive: name of the file that it writes; sha256: of that file.
        wanted: paths in the archive.
    """

    name: str
    npm: bool
    archive: str
    sha256: str
    wanted: tuple[str, ...]


_DLIB = "face_recognition_models-0.3.0/face_recognition_models/models"
PACKAGES = {
    "faceplugin": Package(
        "faceplugin-face-recognition-js@0.0.1",
        True,
        "faceplugin-face-recognition-js-0.0.1.tgz",
        "7ea06031d9a3f83753254fcff60506a07b81b46fc84d4ee024cd041f260ec1ba",
        tuple(f"package/model/{file}" for file in (DETECTOR, POINTS, RECOGNISER)),
    ),
    "hse": Package(
        "@vladmandic/human@3.3.6",
        True,
        "vladmandic-human-3.3.6.tgz",
        "425e9c51dbbca0c8934362b170cb0d54c2529c11c654b3c03092b16e9d6ad3f7",
        ("package/models/faceres.json", "package/models/faceres.bin"),
    ),
    "dlib": Package(
        "face-recognition-models==0.3.0",
        False,
        "face_recognition_models-0.3.0.tar.gz",
        "b79bd200a88c87c9a9d446c990ae71c5a626d1f3730174e6d570157ff1d896cf",
        tuple(
            f"{_DLIB}/{file}.dat"
            for file in ("dlib_face_recognition_resnet_model_v1", "shape_predictor_5_face_landmarks")
        ),
    ),
}


@click.command()
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--archives", type=click.Path(path_type=Path), help="Folder that keeps the packages' archives.")
def main(output: Path, archives: Path | None) -> None:
    for name in PACKAGES:
        folder = fetch(name, output, archives or output / "archives")
        print(*(f"{file}: {file.stat().st_size} bytes" for file in sorted(folder.iterdir())), sep="\n")


def fetch(name: str, output: Path, archives: Path) -> Path:
    """The folder `name` of `output` with the networks of one of `PACKAGES`, which is fetched if it is not there yet.

    Raises:
        subprocess.CalledProcessError: npm or pip could not bring the package.
        ValueError: the archive is another one than was looked at.
    """
    package, folder = PACKAGES[name], output / name
    if folder.is_dir():
        return folder
    archive = archives / package.archive
    if not archive.is_file():
        archives.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", package.name]
        npm = ["npm", "pack", "--silent", package.name]
        subprocess.run(npm if package.npm else pip, cwd=archives, check=True, stdout=subprocess.DEVNULL)
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != package.sha256:
        raise ValueError(f"expected {package.name} with SHA-256 {package.sha256}, got {found}; remove {archive}")
    part = output / f"{name}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    with tarfile.open(archive) as members:
        for path in package.wanted:
            (part / Path(path).name).write_bytes(members.extractfile(path).read())
    if name == "faceplugin":
        _make_pack(part)
    part.rename(folder)
    return folder


def _make_pack(folder: Path) -> None:
    """Replace the package's networks by `det.onnx` and `rec.onnx`."""
    onnx.save(build_detector(folder), folder / "det.onnx")
    (folder / RECOGNISER).rename(folder / "rec.onnx")
    for file in (DETECTOR, POINTS):
        (folder / file).unlink()


def build_detector(models: Path) -> onnx.ModelProto:
    """One graph: (1, 3, 640, 640) in −1…1 → scores, boxes and five key points for strides 8, 16, 32."""
    graph = _Graph()
    score, rows = _scores(graph, _load(models / DETECTOR, "d_"))
    box = graph.add("Gather", graph.add("Reshape", "d_boxes", graph.whole([-1, 4])), rows, axis=0)
    box = graph.add("Mul", box, graph.const([WIDE * SIDE / HIGH, SIDE] * 2))
    points = _points(graph, _load(models / POINTS, "l_"), box, rows)
    # The face with number r goes to the anchor of row r, at (8 · (r // 2), 0).
    anchors = np.stack([np.arange(2 * MOST) // 2 * 8.0, np.zeros(2 * MOST)], 1)
    anchors = graph.add("Slice", graph.const(anchors), graph.whole([0]), graph.add("Shape", score), graph.whole([0]))
    eighth, signs = graph.const(1 / STRIDES[0]), graph.const([-1.0, -1.0, 1.0, 1.0])
    box = graph.add("Sub", box, graph.add("Tile", anchors, graph.whole([1, 2])))
    points = graph.add("Sub", points, graph.add("Tile", anchors, graph.whole([1, 5])))
    score = graph.add("Reshape", score, graph.whole([-1, 1]))
    graph.output("score", score, 1)
    graph.output("bbox", graph.add("Mul", graph.add("Mul", box, signs), eighth), 4)
    graph.output("kps", graph.add("Mul", points, eighth), 10)
    return graph.model()


def _load(path: Path, prefix: str) -> onnx.ModelProto:
    model = onnx.load(path)
    weights = {weight.name for weight in model.graph.initializer}  # listed as inputs too, as old exporters did
    kept = [entry for entry in model.graph.input if entry.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    return compose.add_prefix(version_converter.convert_version(model, OPSET), prefix)


class _Graph:
    """An ONNX graph that is being put together."""

    def __init__(self):
        self.nodes, self.weights, self.outputs = [], [], []

    def const(self, value, kind=np.float32) -> str:
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value, kind), name))
        return name

    def whole(self, value) -> str:
        return self.const(value, np.int64)

    def add(self, kind: str, *inputs: str, output: str = "", **attributes) -> str:
        name = output or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def include(self, model: onnx.ModelProto) -> None:
        self.nodes.extend(model.graph.node)
        self.weights.extend(model.graph.initializer)

    def output(self, kind: str, value: str, width: int) -> None:
        """Rows for the first stride from `value`, and zeros beside them and for the other strides."""
        for stride in STRIDES:
            rows = (SIDE // stride) ** 2 * 2
            filled = self.add("Expand", self.const(np.zeros((1, 1))), self.whole([rows, width]))
            if stride == STRIDES[0]:
                filled = self.add("Concat", value, filled, axis=0)
                filled = self.add("Slice", filled, self.whole([0]), self.whole([rows]), self.whole([0]))
            self.add("Identity", filled, output=f"{kind}_{stride}")
            info = helper.make_tensor_value_info(f"{kind}_{stride}", TensorProto.FLOAT, [rows, width])
            self.outputs.append(info)

    def model(self) -> onnx.ModelProto:
        inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, SIDE, SIDE])]
        graph = helper.make_graph(self.nodes, "faceplugin", inputs, self.outputs, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
        onnx.checker.check_model(model)
        return model


def _scores(graph: _Graph, detector: onnx.ModelProto) -> tuple[str, str]:
    """Scores (N + 1,) of the faces, and their rows among the detector's boxes; the last counts for nothing."""
    none, whole = graph.const([]), graph.whole
    small = graph.add("Resize", "input", none, none, whole([1, 3, HIGH, HIGH]), mode="linear")
    padding = whole([0, 0, 0, 0, 0, 0, 0, WIDE - HIGH])  # grey beside the square picture
    graph.add("Pad", small, padding, graph.const(0.0), output="d_input")
    graph.include(detector)
    scores = graph.add("Slice", "d_scores", whole([1]), whole([2]), whole([2]))
    scores = graph.add("Transpose", scores, perm=[0, 2, 1])
    limits = graph.const([OVERLAP]), graph.const([CERTAIN])
    kept = graph.add("NonMaxSuppression", "d_boxes", scores, whole([MOST]), *limits)
    rows = graph.add("Reshape", graph.add("Slice", kept, whole([2]), whole([3]), whole([1])), whole([-1]))
    rows = graph.add("Concat", rows, whole([0]), axis=0)
    score = graph.add("Gather", graph.add("Reshape", scores, whole([-1])), rows, axis=0)
    real = graph.add("Sub", graph.add("Shape", score), whole([1]))
    flags = graph.add("Concat", graph.add("Expand", graph.const([1.0]), real), graph.const([0.0]), axis=0)
    return graph.add("Mul", score, flags), rows


def _points(graph: _Graph, network: onnx.ModelProto, box: str, rows: str) -> str:
    """Five key points (N, 10) in pixels, from grey squares of 64 pixels around the boxes (N, 4)."""
    whole = graph.whole
    half = graph.add("MatMul", box, graph.const([[0.0], [-0.5], [0.0], [0.5]]))  # of the box's height
    middle = graph.add("MatMul", box, graph.const([[0.5, 0], [0, 0.5], [0.5, 0], [0, 0.5]]))
    square = graph.add("Concat", graph.add("Sub", middle, half), graph.add("Add", middle, half), axis=1)
    square = graph.add("Clip", square, graph.const(0.0), graph.const(SIDE - 1.0))
    gray = graph.add("Conv", "input", graph.const(GRAY / 2), graph.const([127.5 / 256]))
    batch = graph.add("Mul", rows, whole([0]))
    sizes = {"output_height": 64, "output_width": 64, "sampling_ratio": 2}
    graph.add("RoiAlign", gray, square, batch, output="l_input", mode="avg", **sizes)
    graph.include(network)
    pick = np.zeros((136, 10))
    for point, members in enumerate(FIVE):
        for member in members:
            for axis in (0, 1):
                pick[2 * member + axis, 2 * point + axis] = 1 / len(members)
    five = graph.add("MatMul", "l_output", graph.const(pick))
    corner = graph.add("Slice", square, whole([0]), whole([2]), whole([1]))
    size = graph.add("Sub", graph.add("Slice", square, whole([2]), whole([4]), whole([1])), corner)
    repeat = whole([1, 5])
    return graph.add("Add", graph.add("Mul", five, graph.add("Tile", size, repeat)), graph.add("Tile", corner, repeat))


if __name__ == "__main__":
    main()
