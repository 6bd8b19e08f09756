"""Face networks that others trained on photographs, in the pack's own engines; npm and pip fetch them, so slow."""

import os
import subprocess
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from idea_core.faces import FacePack, InsightFaceEngine, OnnxEngine, encode_photos
from idea_core.faces.find import FaceSettings
from idea_core.faces.score import largest
from tools import real_faces
from world3d.people import held_out_people
from world3d.picture import picture, prepare
from world3d.scenes import draw_scene


@pytest.fixture(scope="module")
def networks(tmp_path_factory) -> Path:
    """The networks' folder; the variable IDEA_REAL_FACES may name one that `tools/real_faces.py` wrote."""
    if kept := os.environ.get("IDEA_REAL_FACES"):
        return Path(kept)
    folder = tmp_path_factory.mktemp("networks")
    for name, package in real_faces.PACKAGES.items():
        try:
            real_faces.fetch(name, folder, folder / "archives")
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"nobody else's networks were run: {package.name} did not come: {error}")
    return folder


@pytest.fixture(scope="module")
def photos() -> list[list[np.ndarray]]:
    rng = np.random.default_rng(3)
    portraits = [prepare(person) for person in held_out_people(8)]
    return [[picture(portrait, draw_scene(rng), 320) for _ in range(4)] for portrait in portraits]


@pytest.fixture(scope="module")
def pack(networks) -> FacePack:
    return FacePack("faceplugin", networks / "faceplugin")


@pytest.mark.slow
@pytest.mark.parametrize("engine_class", [OnnxEngine, InsightFaceEngine])
def test_id_encode_finds_a_real_face_and_knows_it_again(pack, engine_class):
    from skimage.data import astronaut  # NASA's portrait of Eileen Collins, in the public domain

    engine, photo = engine_class(pack, "cpu"), astronaut()
    embeds, found = encode_photos(engine, [photo, photo[:, ::-1].copy()])
    assert [len(one.faces) for one in found] == [1, 1]
    assert float(embeds.embeds[0] @ embeds.embeds[1]) > 0.9
    eye, other_eye, nose, *_ = found[0].chosen.keypoints
    assert eye[0] < nose[0] < other_eye[0] and nose[1] > max(eye[1], other_eye[1])


@pytest.mark.slow
def test_people_of_the_world_are_found_and_told_apart(pack, photos):
    engine, settings = OnnxEngine(pack, "cpu"), FaceSettings(skip=True)
    embeds = [encode_photos(engine, some, settings)[0] for some in photos]
    assert np.mean([len(one.embeds) for one in embeds]) > 3.8
    same = [float(a @ b) for one in embeds for a, b in combinations(one.embeds, 2)]
    other = [float(one.mean @ another.mean) for one, another in combinations(embeds, 2)]
    assert np.mean(same) > 0.65 and np.mean(other) < 0.45


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dlib", "hse"])
def test_judges_of_other_makers_agree(networks, pack, photos, name):
    if name == "dlib":
        pytest.importorskip("dlib", reason="dlib's judge was not run: dlib-bin is not installed")
    from world3d import judges

    judge = {"dlib": judges.DlibJudge, "hse": judges.HseJudge}[name](networks / name)
    engine, rows, who = OnnxEngine(pack, "cpu"), [], []
    for person, some in enumerate(photos):
        for photo in some:
            if face := largest(engine.detect(photo)):
                rows.append(judge.embed(photo, face.keypoints))
                who.append(person)
    figures = judges.verification(np.stack(rows), np.array(who), (0.05,))
    assert figures["same"] > figures["other"] and figures["TAR@0.05"] > 0.7


def test_an_archive_that_was_not_looked_at_is_refused(tmp_path):
    package = real_faces.PACKAGES["hse"]
    (tmp_path / package.archive).write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"expected @vladmandic/human@3\.3\.6 with SHA-256 425e9"):
        real_faces.fetch("hse", tmp_path / "out", tmp_path)
    assert not (tmp_path / "out").exists()
