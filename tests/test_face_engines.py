"""onnxruntime alone gives what real insightface gives; engines are loaded once and can be freed."""

import re
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from face_models import photo, write_face_pack

from idea_core.errors import FaceError, SocketError
from idea_core.faces import FacePack, InsightFaceEngine, OnnxEngine, align, find_packs, free_engines, load_engine
from idea_core.faces.face import Face, RecogniserFile
from idea_core.faces.onnx_file import normalises
from idea_core.faces.score import embed_images, largest, only
from idea_core.faces.torch_recogniser import TorchRecogniser
from miniature import people
from miniature.render import render_with_keypoints
from miniature.scenes import draw_scenes
from miniature.world import FACES

PEOPLE = [((205, 150, 110), (60, 40, 30)), ((120, 90, 70), (200, 170, 90)), ((90, 110, 160), (30, 30, 60))]


def crowd(count: int, **options) -> np.ndarray:
    """A photo of `count` faces in rows of four."""
    places = [(120 + 200 * (i % 4), 120 + 190 * (i // 4)) for i in range(count)]
    faces = [(x, y, 90, 10.0 * i, *PEOPLE[i % 3]) for i, (x, y) in enumerate(places)]
    return photo(width=840, height=640, faces=faces, **options)


def single(angle=0.0, size=100, **options) -> np.ndarray:
    return photo(faces=[(options.pop("x", 160), options.pop("y", 120), size, angle, *PEOPLE[0])], **options)


SCENES = {
    **{f"{count} faces": crowd(count) for count in (0, 1, 2, 3, 12)},
    **{f"turned by {angle}": single(angle) for angle in (-90, -30, 30, 90, 180)},
    **{f"{size} pixels": single(size=size, width=640, height=480, x=320, y=240) for size in (40, 70, 400)},
    "30 pixels": single(size=30),
    "upright format": single(width=250, height=600, x=125, y=300),
    "at the border": single(x=45, y=60),
    "noise": np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8),
    "one pixel": np.full((1, 1, 3), 100, np.uint8),
    "16 megapixels": single(size=1200, width=4928, height=3264, x=2000, y=1500),
}


@pytest.fixture(scope="module")
def pack(tmp_path_factory) -> FacePack:
    folder = tmp_path_factory.mktemp("tiny")
    write_face_pack(folder)
    return FacePack("tiny", folder)


@pytest.fixture(scope="module")
def theirs(pack) -> InsightFaceEngine:
    return InsightFaceEngine(pack, "cpu")


@pytest.fixture(scope="module")
def ours(pack) -> OnnxEngine:
    return OnnxEngine(pack, "cpu")


@pytest.mark.parametrize("size", [640, 256])
@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
def test_onnxruntime_alone_finds_and_embeds_as_insightface(ours, theirs, scene, size):
    found, expected = ours.detect(scene, size), theirs.detect(scene, size)
    assert len(found) == len(expected)
    for face, reference in zip(found, expected):
        assert face.score == reference.score
        assert np.array_equal(face.box, reference.box)
        assert np.array_equal(face.keypoints, reference.keypoints)
        assert np.abs(ours.align(scene, face).astype(int) - theirs.align(scene, reference)).max() <= 1
        assert cosine(ours.embed(scene, face), theirs.embed(scene, reference)) >= 0.99999


def test_trained_networks_see_the_same_either_way():
    """The miniature world's detector and recogniser, convolutions that were trained."""
    pack = FacePack("miniature", FACES)
    ours, theirs = OnnxEngine(pack, "cpu"), InsightFaceEngine(pack, "cpu")
    generator = torch.Generator().manual_seed(5)
    faces = people.held_out_people(6)
    drawn = render_with_keypoints(faces, draw_scenes(6, generator), generator)[0]
    for scene in (drawn.movedim(1, -1) * 255).round().to(torch.uint8).numpy():
        (face,), (reference,) = ours.detect(scene), theirs.detect(scene)
        assert face.score == reference.score
        assert np.array_equal(face.box, reference.box) and np.array_equal(face.keypoints, reference.keypoints)
        assert cosine(ours.embed(scene, face), theirs.embed(scene, reference)) >= 0.99999


def test_the_scenes_hold_faces(ours):
    counts = {name: len(ours.detect(scene)) for name, scene in SCENES.items()}
    assert [counts[f"{count} faces"] for count in (0, 1, 2, 3, 12)] == [0, 1, 2, 3, 12]
    assert [name for name, count in counts.items() if not count] == ["0 faces", "noise", "one pixel"]


def test_several_photos_are_looked_at_as_one_by_one(pack, ours):
    theirs = InsightFaceEngine(pack, "cpu")
    theirs._detector.det_thresh = 0.9  # somebody else's
    scenes = [crowd(count) for count in (3, 0, 12, 1)] * 4
    for engine in (ours, theirs):
        for found, scene in zip(engine.detect_all(scenes), scenes, strict=True):
            alone = engine.detect(scene)
            assert [face.score for face in found] == [face.score for face in alone]
            assert all(np.array_equal(face.keypoints, other.keypoints) for face, other in zip(found, alone))
    assert theirs._detector.det_thresh == 0.9


def test_pictures_without_one_face_have_no_embedding(ours):
    scenes = np.stack([crowd(count) for count in (0, 3)])
    assert not embed_images(ours, scenes, only).any()
    assert embed_images(ours, [crowd(1)], only).norm(dim=1).item() == pytest.approx(1)
    assert embed_images(ours, scenes, largest).norm(dim=1).tolist() == pytest.approx([0, 1])


def test_a_face_is_embedded_as_by_insightfaces_own_pipeline(pack, theirs):
    from insightface.app import FaceAnalysis

    analysis = FaceAnalysis(str(pack.folder), providers=["CPUExecutionProvider"])
    analysis.prepare(ctx_id=0, det_size=(640, 640))
    borrowed, scene = InsightFaceEngine.of_analysis(analysis), crowd(3)
    expected = analysis.get(np.ascontiguousarray(scene[..., ::-1]))
    assert len(expected) == 3
    for face, own, reference in zip(borrowed.detect(scene), theirs.detect(scene), expected):
        assert np.array_equal(face.box, reference.bbox) and np.array_equal(own.box, reference.bbox)
        assert cosine(borrowed.embed(scene, face), reference.embedding) >= 0.9999999
        assert cosine(theirs.embed(scene, own), reference.embedding) >= 0.9999999


def test_other_objects_are_no_analysis():
    with pytest.raises(SocketError, match="a FaceAnalysis with detection and recognition, got a dict with nothing"):
        InsightFaceEngine.of_analysis({})


def test_a_minimum_score(ours, theirs):
    scene = crowd(3)
    best = max(face.score for face in ours.detect(scene))
    for engine in (ours, theirs):
        assert len(engine.detect(scene, min_score=best - 1e-6)) < 3
        assert engine.detect(scene, min_score=0.999) == []
        assert len(engine.detect(scene)) == 3


def test_a_batch_is_embedded_as_one_by_one(ours, theirs):
    scene = crowd(12)
    for engine in (ours, theirs):
        faces = engine.detect(scene)
        together = engine.embed_crops([engine.align(scene, face) for face in faces])
        alone = np.stack([engine.embed(scene, face) for face in faces])
        assert together.shape == (12, 512)
        assert np.abs(together - alone).max() <= 1e-6
        assert engine.embed_crops([]).shape == (0, 512)


@pytest.mark.parametrize("name", ["3 faces", "turned by 30", "400 pixels", "at the border"])
def test_without_opencv_little_differs(ours, monkeypatch, name):
    scene = SCENES[name]
    expected = [(face, ours.align(scene, face), ours.embed(scene, face)) for face in ours.detect(scene)]
    monkeypatch.setattr(align, "opencv", lambda: None)
    found = ours.detect(scene)
    assert len(found) == len(expected) > 0
    for face, (reference, crop, embedding) in zip(found, expected):
        assert np.abs(face.keypoints - reference.keypoints).max() < 0.1
        assert np.abs(face.score - reference.score) < 0.01
        assert np.abs(ours.align(scene, reference).astype(int) - crop).mean() < 0.5
        assert cosine(ours.embed(scene, reference), embedding) > 0.999


def test_an_aligned_crop_is_taken_as_it_is(ours):
    crop = ours.align(SCENES["1 faces"], ours.detect(SCENES["1 faces"])[0])
    assert np.array_equal(ours.align(crop, Face.aligned(112)), crop)


def test_a_recogniser_in_one_file(tmp_path, pack, ours):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "arcface.onnx").write_bytes((pack.folder / "rec_test.onnx").read_bytes())
    (single_file,) = find_packs([tmp_path]).values()
    crop = ours.align(SCENES["1 faces"], ours.detect(SCENES["1 faces"])[0])
    for engine in (OnnxEngine(single_file, "cpu"), InsightFaceEngine(single_file, "cpu")):
        assert np.array_equal(engine.embed_crops([crop]), ours.embed_crops([crop]))
        with pytest.raises(FaceError, match=r"a face detector, got arcface\.onnx, a recogniser alone"):
            engine.detect(crop)


@pytest.mark.parametrize(("left_out", "kind"), [("det_test", "detector .SCRFD."), ("rec_test", "recogniser .ArcFace.")])
def test_an_incomplete_pack_names_what_it_lacks(tmp_path, left_out, kind):
    write_face_pack(tmp_path)
    (tmp_path / f"{left_out}.onnx").unlink()
    for engine in (OnnxEngine, InsightFaceEngine):
        with pytest.raises(FaceError, match=f"a face {kind} model in .*, got .*_test.onnx.*antelopev2 has scrfd_10g"):
            engine(FacePack("part", tmp_path))


def damaged(model: bytes) -> dict[str, bytes]:
    """What lies in place of an ONNX file after a download that went wrong."""
    network = onnx.load_from_string(model)
    unknown = onnx.load_from_string(model)
    unknown.graph.node[0].op_type = "NoSuchOperator"
    network.ClearField("graph")
    return {
        "a file cut short, .* bytes of .* or more": model[: len(model) // 2],
        "a web page": b"\n<!DOCTYPE html><html><body>404</body></html>" * 9,
        "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 16923827\n",
        "an empty file": b"",
        "an archive": b"PK\x03\x04" + bytes(99),
        "a file without a network in it": network.SerializeToString(),
        "a damaged file, or one of another format": bytes(999),
        ".*NoSuchOperator.*": unknown.SerializeToString(),
    }


@pytest.mark.parametrize("place", ["det_test.onnx", "rec_test.onnx"])
@pytest.mark.parametrize("engine", [OnnxEngine, InsightFaceEngine])
def test_a_model_that_cannot_be_opened_is_named_with_what_is_wrong(tmp_path, pack, engine, place):
    whole = (pack.folder / place).read_bytes()
    kind = {"det": "face detector [(]SCRFD[)]", "rec": "face recogniser [(]ArcFace[)]"}[place[:3]]
    write_face_pack(tmp_path)
    for said, content in damaged(whole).items():
        (tmp_path / place).write_bytes(content)
        got = rf"got .*{place} [(]{said}[)].*[.] Copy or download {place} again"
        wanted = rf"^Expected a {kind} model in {re.escape(str(tmp_path))}, {got}"
        with pytest.raises(FaceError, match=wanted) as refused:
            engine(FacePack("broken", tmp_path), "cpu")
        assert "onnxruntime_src" not in str(refused.value) and "ONNXRuntimeError" not in str(refused.value)


def test_a_recogniser_that_cannot_be_read_into_torch_is_named_with_what_is_wrong(tmp_path, pack):
    path = tmp_path / "rec.onnx"
    name = re.escape(str(path))
    contents = damaged((pack.folder / "rec_test.onnx").read_bytes())
    contents.pop(".*NoSuchOperator.*")  # TorchRecogniser has words of its own for it
    no_output = onnx.load(pack.folder / "rec_test.onnx")
    no_output.graph.ClearField("output")
    for said, content in {**contents, "a network without input or output": no_output.SerializeToString()}.items():
        path.write_bytes(content)
        wanted = rf"^Expected a face recogniser [(]ArcFace[)] model in {name}, got {said} there[.] Copy or download rec"
        with pytest.raises(FaceError, match=wanted):
            TorchRecogniser(RecogniserFile(path, 112, 127.5, 1 / 127.5))


@pytest.mark.parametrize("engine", [OnnxEngine, InsightFaceEngine])
def test_a_broken_spare_beside_whole_models_is_passed_over_and_named(tmp_path, pack, engine, caplog):
    write_face_pack(tmp_path)
    (tmp_path / "._det_test.onnx").write_bytes(b"\0\5\x16\7")  # a Mac's, and no file of the pack's
    whole = engine(FacePack("spares", tmp_path), "cpu")
    assert not caplog.messages
    contents = damaged((pack.folder / "det_test.onnx").read_bytes())
    for number, content in enumerate(contents.values()):
        (tmp_path / f"{('det_0', 'rec_0', 'zebra')[number % 3]}{number}.onnx").write_bytes(content)
    found = engine(FacePack("spares", tmp_path), "cpu")
    scene = crowd(3)
    for one, other in zip(found.detect(scene), whole.detect(scene), strict=True):
        assert np.array_equal(found.embed(scene, one), whole.embed(scene, other))
    (said,) = caplog.messages
    assert said.startswith("ID-EA: passed over in the face models of spares: det_0")
    assert "zebra2.onnx (a Git LFS pointer)" in said and "rec_01.onnx (a web page)" in said
    assert said.count(".onnx (") == len(contents)


def test_recognisers_that_normalise_pixels_themselves_are_told_by_their_nodes(tmp_path, pack):
    path = tmp_path / "mxnet.onnx"
    model = onnx.load(pack.folder / "rec_test.onnx")
    assert not normalises(pack.folder / "rec_test.onnx")
    model.graph.node[0].name, model.graph.node[1].name = "_minusscalar0", "_mulscalar0"
    onnx.save(model, path)
    assert normalises(path)


def test_engines_are_loaded_once_and_freed(pack):
    free_engines()
    engine = load_engine(pack, "cpu")
    assert load_engine(pack, "cpu") is engine
    free_engines()
    assert load_engine(pack, "cpu") is not engine
    free_engines()


WITHOUT = """
import sys
from importlib.machinery import PathFinder
blocked, find = set(sys.argv[2].split(",")), PathFinder.find_spec
PathFinder.find_spec = lambda name, *place: None if name.split(".")[0] in blocked else find(name, *place)
import idea_core.faces as faces, numpy as np, os
print(*sorted({"onnxruntime", "insightface", "cv2", "onnx"} & sys.modules.keys()), "before")
engine = faces.load_engine(faces.FacePack("tiny", faces.packs.Path(sys.argv[1])), "cpu")
scene = np.load(sys.argv[1] + "/scene.npy")
print(type(engine).__name__, len(engine.detect(scene)), os.environ["ORT_DISABLE_TELEMETRY"])
print(*sorted(blocked & sys.modules.keys()), "blocked")
"""


@pytest.mark.parametrize(
    ("missing", "kind"),
    [("insightface", "OnnxEngine"), ("insightface,onnx,cv2,skimage", "OnnxEngine"), ("none", "InsightFaceEngine")],
)
def test_what_is_installed_decides_which_engine_is_taken(pack, missing, kind):
    np.save(pack.folder / "scene.npy", crowd(3))
    command = [sys.executable, "-c", WITHOUT, str(pack.folder), missing]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines == ["before", f"{kind} 3 1", "blocked"]


def test_only_what_is_there_is_asked_for(ours):
    assert ours.providers == ("CPUExecutionProvider",)
    assert set(ours.providers) <= set(onnxruntime.get_available_providers())


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
