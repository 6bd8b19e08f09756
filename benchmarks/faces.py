"""What ID Encode's engines cost beside insightface's own `FaceAnalysis.get`, by time and memory.

    python benchmarks/faces.py [--recogniser r50] [--photos 1 8 64] [--faces 1] [--bare]

Networks of random weights stand in for a face model pack: a recogniser of r50's or r100's size, and, since such packs
have them, landmarks in 3D and 2D and gender with age, all three smaller than the usual ones. The detector is the tests'
own, a small one too. Prints one JSON object: median milliseconds a photo, measured in turns in the same run, how many
times faster each engine is than `FaceAnalysis.get`, and the memory of an engine loaded, used and freed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from face_models import photo, write_face_pack  # noqa: E402

from idea_core.faces import FacePack, InsightFaceEngine, OnnxEngine, encode_photos, free_engines  # noqa: E402

BLOCKS = {"r18": (2, 2, 2, 2), "r50": (3, 4, 14, 3), "r100": (3, 13, 30, 3)}  # of IResNet's four stages


def write_network(path: Path, blocks: tuple[int, ...], width: int, side: int, outputs: int) -> None:
    """An IResNet of random weights: convolutions of 3 × 3, two a block, and one fully connected layer."""
    random, nodes, weights = np.random.default_rng(0), [], []

    def weight(*shape: int) -> str:
        fan_in = max(1, int(np.prod(shape[1:])))
        values = (random.standard_normal(shape, np.float32) / fan_in**0.5).astype(np.float32)
        weights.append(numpy_helper.from_array(values, f"weight_{len(weights)}"))
        return weights[-1].name

    def add(operator: str, *inputs: str, **attributes) -> str:
        nodes.append(helper.make_node(operator, inputs, [f"value_{len(nodes)}"], **attributes))
        return nodes[-1].output[0]

    def convolve(value: str, before: int, after: int, kernel: int = 3, stride: int = 1) -> str:
        pads = [kernel // 2] * 4
        return add("Conv", value, weight(after, before, kernel, kernel), pads=pads, strides=[stride] * 2)

    value, before = convolve("input", 3, width), width
    for stage, count in enumerate(blocks):
        after = width << stage
        for block in range(count):
            stride = 2 if block == 0 else 1
            inner = add("PRelu", convolve(value, before, after), weight(after, 1, 1))
            shortcut = convolve(value, before, after, 1, 2) if block == 0 else value
            value, before = add("Add", convolve(inner, after, after, stride=stride), shortcut), after
    size = before * (-(-side // 16)) ** 2
    value = add("MatMul", add("Flatten", value), weight(size, outputs))
    nodes[-1].output[0] = "output"
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("input", ["batch", 3, side, side]), ("output", ["batch", outputs]))
    ]
    graph = helper.make_graph(nodes, "random", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


def write_pack(folder: Path, recogniser: str, bare: bool) -> None:
    write_face_pack(folder)
    (folder / "rec_test.onnx").unlink()
    write_network(folder / "rec.onnx", BLOCKS[recogniser], 64, 112, 512)
    if bare:
        return
    write_network(folder / "landmarks_3d.onnx", BLOCKS["r18"], 32, 192, 3309)
    write_network(folder / "landmarks_2d.onnx", BLOCKS["r18"], 8, 192, 212)
    write_network(folder / "gender_age.onnx", BLOCKS["r18"], 8, 96, 3)


def load_analysis(folder: Path):
    from insightface.app import FaceAnalysis

    analysis = FaceAnalysis(str(folder), providers=["CPUExecutionProvider"])
    analysis.prepare(ctx_id=0, det_size=(640, 640))
    return analysis


def times(folder: Path, counts: list[int], faces: int, rounds: int) -> dict:
    """Milliseconds a photo, and how many times faster than `FaceAnalysis.get`."""
    places = [(120 + 200 * i, 150, 100) for i in range(faces)]
    photos = [photo(width=40 + 200 * faces, height=300, faces=places, seed=seed) for seed in range(max(counts))]
    pack, analysis = FacePack("random", folder), load_analysis(folder)
    engines = {"insightface": InsightFaceEngine(pack, "cpu"), "onnxruntime": OnnxEngine(pack, "cpu")}
    runs = {name: lambda some, engine=engine: encode_photos(engine, some) for name, engine in engines.items()}
    runs["FaceAnalysis.get"] = lambda some: [analysis.get(np.ascontiguousarray(one[..., ::-1])) for one in some]
    result = {}
    for count in counts:
        taken = {name: [] for name in runs}
        for _ in range(rounds + 1):  # the first one warms up
            for name, run in runs.items():
                start = time.perf_counter()
                run(photos[:count])
                taken[name].append(time.perf_counter() - start)
        medians = {name: statistics.median(spent[1:]) * 1000 / count for name, spent in taken.items()}
        result[count] = {
            "ms_per_photo": {name: round(median, 1) for name, median in medians.items()},
            "times_faster": {name: round(medians["FaceAnalysis.get"] / medians[name], 2) for name in engines},
        }
    return result


def memory(folder: Path, small: Path, engine_class: type) -> dict:
    """Megabytes of the process, after a small engine was used and freed: then with the large one, and after it."""

    def use(place: Path) -> float:
        engine = engine_class(FacePack("random", place), "cpu")
        encode_photos(engine, [photo()] * 8)
        return _megabytes()

    use(small)
    free_engines()
    before, used = _megabytes(), use(folder)
    free_engines()
    return {"start": round(before), "used": round(used), "freed": round(_megabytes())}


def _megabytes() -> float:
    """What the process holds now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recogniser", choices=("r50", "r100"), default="r50")
    parser.add_argument("--photos", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--faces", type=int, default=1, help="in each photo")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bare", action="store_true", help="leave landmarks, gender and age out of the pack")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder, small = Path(place) / "random", Path(place) / "small"
        write_face_pack(small)
        write_pack(folder, options.recogniser, options.bare)
        measured = {kind.__name__: memory(folder, small, kind) for kind in (OnnxEngine, InsightFaceEngine)}
        spent = times(folder, options.photos, options.faces, options.rounds)
    print(json.dumps({**vars(options), "memory_mb": measured, "time": spent}, indent=2))


if __name__ == "__main__":
    main()
