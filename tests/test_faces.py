"""Photos to embeddings, with real insightface and onnxruntime on tiny models that find drawn faces."""

import numpy as np
import pytest
import torch
from face_models import photo, write_face_pack
from PIL import Image

from idea_core.errors import FaceError, IdentityFileError
from idea_core.faces import IdEmbeds, InsightFaceEngine, encode_photos, find_packs
from idea_core.faces.embeds_file import load_embeds, save_embeds
from idea_core.faces.packs import FacePack, require_pack
from idea_core.faces.photos import bucket_of, find_photos, fit, read_photo
from idea_core.faces.pictures import CHOSEN, Cut, crop_face, draw_faces
from idea_core.faces.providers import PROVIDERS
from idea_core.tensorfile import write_tensors

ALICE, BOB = ((205, 150, 110), (60, 40, 30)), ((120, 90, 70), (200, 170, 90))


@pytest.fixture(scope="module")
def engine(tmp_path_factory) -> InsightFaceEngine:
    folder = tmp_path_factory.mktemp("insightface") / "models" / "tiny"
    write_face_pack(folder)
    return InsightFaceEngine(FacePack("tiny", folder), "cpu")


def portrait(person, x=160, y=120, size=100, **options) -> np.ndarray:
    return photo(faces=[(x, y, size, 0.0, *person)], **options)


def test_one_person_is_alike_and_two_are_not(engine):
    photos = [portrait(ALICE), portrait(ALICE, 120, 110, 80, seed=3), portrait(BOB)]
    embeds, _ = encode_photos(engine, photos)
    likeness = embeds.embeds @ embeds.embeds.T
    assert likeness[0, 1] > 0.8
    assert likeness[0, 2] < 0.5


def test_the_mean_is_weighted_by_score_and_of_length_one(engine):
    embeds, found = encode_photos(engine, [portrait(ALICE), portrait(BOB)])
    scores = torch.tensor([f.chosen.score for f in found])
    expected = scores[0] * embeds.embeds[0] + scores[1] * embeds.embeds[1]
    assert embeds.embeds.shape == (2, 512)
    assert torch.allclose(embeds.embeds.norm(dim=1), torch.ones(2))
    assert torch.allclose(embeds.mean, expected / expected.norm(), atol=1e-6)


def test_the_largest_face_is_taken(engine):
    picture = photo(faces=[(80, 120, 60, 0.0, *BOB), (220, 120, 110, 0.0, *ALICE)])
    embeds, (found,) = encode_photos(engine, [picture])
    alone, _ = encode_photos(engine, [portrait(ALICE)])
    assert len(found.faces) == 2
    assert abs(found.chosen.box[[0, 2]].mean() - 220) < 5
    assert embeds.mean @ alone.mean > 0.8


def test_a_tight_crop_is_looked_at_again_with_a_margin(engine):
    picture = portrait(ALICE, size=200)
    (whole,) = engine.detect(picture)
    left, top = (whole.keypoints.min(0) - 20).astype(int)
    right, bottom = (whole.keypoints.max(0) + 20).astype(int)
    crop = np.ascontiguousarray(picture[top:bottom, left:right])
    assert not engine.detect(crop)
    _, (found,) = encode_photos(engine, [crop])
    assert np.abs(found.chosen.keypoints + [left, top] - whole.keypoints).max() < 4


def test_photos_of_different_sizes(engine):
    embeds, _ = encode_photos(engine, [portrait(ALICE), portrait(ALICE, 320, 240, 160, width=640, height=480)])
    assert embeds.embeds[0] @ embeds.embeds[1] > 0.8


@pytest.mark.parametrize(
    ("photos", "message"),
    [
        ([], "at least one photo, got none"),
        ([photo(), photo(faces=[])], r"a face in photo 1, got none in 320 × 240 pixels, nor with a margin"),
        (
            [np.zeros((0, 10, 3), np.uint8)],
            r"photo 0 with pixels, \(height, width, 3\), uint8, got shape \(0, 10, 3\)",
        ),
        ([np.zeros((10, 10), np.uint8)], "photo 0 with pixels"),
    ],
)
def test_photos_without_a_face_are_named(engine, photos, message):
    with pytest.raises(FaceError, match=message):
        encode_photos(engine, photos)


def test_a_crop_has_the_face_in_its_middle(engine):
    picture = portrait(ALICE, 40, 60, 60)
    face = engine.detect(picture)[0]
    crop = crop_face(picture, face, Cut(256))
    assert crop.shape == (256, 256, 3)
    (inside,) = engine.detect(crop)
    center = (inside.box[:2] + inside.box[2:]) / 2
    assert np.abs(center - 128).max() < 6
    assert (inside.box[2] - inside.box[0]) == pytest.approx(128, abs=12)


def test_the_preview_marks_the_chosen_face(engine):
    _, (found,) = encode_photos(engine, [portrait(ALICE)])
    preview = draw_faces(found)
    assert preview.shape == found.photo.shape
    assert (preview == CHOSEN).all(-1).sum() > 50
    assert not np.shares_memory(preview, found.photo)


def test_packs_in_flat_and_nested_folders(tmp_path):
    write_face_pack(tmp_path / "models" / "flat")
    write_face_pack(tmp_path / "models" / "antelopev2" / "antelopev2")
    (tmp_path / "models" / "empty").mkdir()
    packs = find_packs([tmp_path, tmp_path / "missing"])
    assert sorted(packs) == ["antelopev2", "flat"]
    assert InsightFaceEngine(packs["antelopev2"], "cpu").providers == ("CPUExecutionProvider",)


def test_a_missing_pack_names_the_folders_searched(tmp_path):
    with pytest.raises(FaceError, match=r"a face model pack 'buffalo_l' in .*models, got none there\. Put the pack's"):
        require_pack("buffalo_l", [tmp_path])


def test_a_provider_that_is_not_there_is_said(tmp_path):
    import onnxruntime

    write_face_pack(tmp_path)
    available = onnxruntime.get_available_providers()
    choice, name = next((choice, name) for choice, name in PROVIDERS.items() if name not in available)
    with pytest.raises(FaceError, match=f"onnxruntime with {name}, got only .*CPUExecutionProvider"):
        InsightFaceEngine(FacePack("tiny", tmp_path), choice)


def test_photos_from_disk(tmp_path):
    grey = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "deep.png")
    turned = Image.new("RGB", (20, 10), (255, 0, 0))
    exif = turned.getexif()
    exif[0x0112] = 6  # the camera was turned
    turned.save(tmp_path / "turned.jpg", exif=exif)
    Image.new("RGBA", (5, 5), (0, 0, 255, 0)).save(tmp_path / "clear.png")
    (tmp_path / "notes.txt").write_text("no photo")
    photos = {path.name: read_photo(path) for path in find_photos([tmp_path])}
    assert list(photos) == ["clear.png", "deep.png", "turned.jpg"]
    assert photos["turned.jpg"].shape == (20, 10, 3) and photos["clear.png"].shape == (5, 5, 3)
    assert photos["deep.png"].min() == 0 and photos["deep.png"].max() == 255 and 100 < photos["deep.png"].mean() < 155
    assert fit(photos["turned.jpg"], 8, 8).shape == (8, 8, 3) and fit(photos["turned.jpg"], 16, 8).shape == (8, 16, 3)


@pytest.mark.parametrize(
    "shape, size",
    [((512, 512), (512, 512)), ((1920, 1080), (640, 384)), ((1080, 1920), (384, 640)), ((4000, 3000), (576, 448))],
)
def test_a_photo_is_trained_at_about_its_own_shape(shape, size):
    assert bucket_of(*shape, 512) == size
    assert size[0] * size[1] <= 512**2
    assert bucket_of(*shape, 64) == (64, 64) and bucket_of(*shape, 16) == (16, 16)


def test_face_embeddings_on_disk(tmp_path):
    embeds = IdEmbeds(torch.nn.functional.normalize(torch.randn(3, 512)), torch.tensor([0.9, 0.8, 0.7]))
    path = save_embeds(embeds, tmp_path / "a.id.safetensors", ["1.jpg", "2.jpg", "3.jpg"], "pack")
    back = load_embeds(path)
    assert torch.equal(back.embeds, embeds.embeds) and torch.equal(back.mean, embeds.mean)
    for damage in (
        {"embeds": torch.full((3, 512), torch.nan)},
        {"scores": torch.zeros(3)},
        {"embeds": torch.ones(3, 5)},
    ):
        broken = {"embeds": embeds.embeds, "scores": embeds.scores, **damage}
        write_tensors(path, broken, {"format": "id-ea-face", "format_version": "1"})
        with pytest.raises(IdentityFileError, match="in a.id.safetensors"):
            load_embeds(path)
    with pytest.raises(IdentityFileError, match="of format id-ea-face 1, got other None"):
        load_embeds(write_tensors(path, {"x": torch.zeros(1)}, {"format": "other"}))
