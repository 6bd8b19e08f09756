"""The two figures of face similarity: which face counts, what is computed, and how the two relate."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from idea_command import faces, run
from PIL import Image
from portraits import BOB, NOBODY, portrait, trio
from torch.nn.functional import normalize

from idea_core.evaluation import ImageScore, write_report
from idea_core.faces import FaceEngine, IdEmbeds, encode_photos
from idea_core.faces.likeness import compare
from idea_core.faces.score import embed_images, largest, only, pick_faces, similarities, similarity_to_mean
from idea_core.headless.jobs import FaceSource


@pytest.fixture(scope="module")
def engine(studio) -> FaceEngine:
    return FaceSource(studio / "faces", provider="cpu").load()


def test_one_face_counts_in_an_image(engine):
    photos = [portrait(), NOBODY, trio()]
    found = engine.detect_all(photos)
    assert [len(faces) for faces in found] == [1, 0, 3]
    one, none, biggest = pick_faces(engine, photos, largest)
    assert one and none is None and biggest.area == max(face.area for face in found[2])
    assert [face is not None for face in pick_faces(engine, photos, only)] == [True, False, False]
    embedded = embed_images(engine, photos, largest)
    assert embedded.norm(dim=1).tolist() == pytest.approx([1, 0, 1])
    assert torch.equal(embed_images(engine, photos, only), embedded * torch.tensor([[1.0], [0.0], [0.0]]))


def test_the_similarity_to_the_mean_is_the_mean_similarity_by_the_length_of_the_mean():
    generator = torch.Generator().manual_seed(0)
    person = normalize(torch.randn(512, generator=generator), dim=0)
    photos = normalize(person + 0.03 * torch.randn(4, 512, generator=generator), dim=1)
    face = normalize(person + 0.03 * torch.randn(512, generator=generator), dim=0)
    references = IdEmbeds(photos, torch.ones(4))
    to_mean, mean = float(similarity_to_mean(face, references.mean)), float(similarities(face, photos).mean())
    assert to_mean == pytest.approx(mean / float(photos.mean(0).norm()), abs=1e-6)
    assert to_mean > mean + 0.05
    alike = 0.7 + 0.3 * torch.eye(4)  # cosines of four photos to each other
    assert 1 / float(alike.mean().sqrt()) == pytest.approx(1.14, abs=0.005)


def write(folder: Path, photos: list[np.ndarray]) -> None:
    folder.mkdir()
    for number, photo in enumerate(photos):
        Image.fromarray(photo).save(folder / f"{number}.png")


def test_the_node_and_the_command_show_the_same_figure(engine, studio, tmp_path):
    photos = [portrait(), portrait(BOB), portrait(x=120, seed=4)]
    references, _ = encode_photos(engine, photos)
    images = [portrait(BOB), portrait(size=90, seed=7), NOBODY]
    write(tmp_path / "photos", photos)
    write(tmp_path / "images", images)
    places = ["--reference", tmp_path / "photos", "-o", tmp_path / "report"]
    result = run("evaluate", tmp_path / "images", *places, *faces(studio), "--json")
    likeness = compare(engine, images, references)
    assert result["similarity_to_mean_detected"] == pytest.approx(likeness.mean, abs=1e-5)
    assert result["similarity_to_mean_detected"] != pytest.approx(result["mean_similarity_detected"], abs=1e-5)
    rows = json.loads((tmp_path / "report" / "scores.json").read_text())["images"]
    assert [row["similarity_to_mean"] for row in rows] == pytest.approx(likeness.cosines, abs=1e-5)
    with open(tmp_path / "report" / "scores.csv") as table:
        assert set(csv.DictReader(table).fieldnames) >= {"mean_similarity", "similarity_to_mean"}
    page = (tmp_path / "report" / "report.html").read_text()
    assert "similarity to the mean embedding" in page and "mean similarity to the reference images" in page


def test_the_report_has_means_and_spread_by_prompt(tmp_path):
    Image.fromarray(portrait()).save(tmp_path / "0.png")

    def score(prompt: str | None, likeness: float | None) -> ImageScore:
        return ImageScore(tmp_path / "0.png", prompt, int(likeness is not None), likeness, likeness, None)

    write_report([score("{} by night", 0.5), score("{} by night", None), score(None, 0.25)], [], tmp_path / "report")
    night, other = json.loads((tmp_path / "report" / "scores.json").read_text())["prompts"].items()
    assert night[0] == "{} by night" and other[0] == ""
    assert (night[1]["images"], night[1]["mean_similarity_strict"], night[1]["detection_rate"]) == (2, 0.25, 0.5)
    assert night[1]["spread"] == pytest.approx(0.125**0.5) and other[1]["spread"] is None
    page = (tmp_path / "report" / "report.html").read_text()
    assert '<th scope="row">{} by night</th>' in page and "0.354" in page
