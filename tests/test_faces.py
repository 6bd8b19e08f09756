"""Photos to embeddings, with real insightface and onnxruntime on tiny models that find drawn faces."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from face_models import photo, write_face_pack
from PIL import Image, features

from idea_core.errors import FaceError, IdentityFileError
from idea_core.faces import IdEmbeds, InsightFaceEngine, encode_photos, find_packs
from idea_core.faces.embeds import load_embeds, save_embeds
from idea_core.faces.packs import PROVIDERS, FacePack, require_pack
from idea_core.faces.photos import bucket_of, find_photos, fit, read_photo, read_photos
from idea_core.faces.pictures import CHOSEN, Cut, crop_face, draw_faces
from idea_core.files.tensorfile import write_tensors

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


COLOR = (200, 120, 60)
PLAIN = Image.new("RGB", (40, 30), COLOR)
PALETTE = PLAIN.convert("P", palette=Image.Palette.ADAPTIVE)
HEIC = Path(__file__).parent / "data" / "two_colors.heic"
needs_avif = pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF")


@pytest.mark.parametrize(
    ("name", "picture", "options"),
    [
        ("a.jfif", PLAIN, {"format": "JPEG"}),
        ("a", PLAIN, {"format": "PNG"}),
        ("jpeg.png", PLAIN, {"format": "JPEG"}),
        ("a.webp", PLAIN, {"lossless": True}),
        ("a.bmp", PLAIN, {}),
        ("a.tif", PLAIN, {}),
        ("a.tga", PLAIN, {}),
        pytest.param("a.avif", PLAIN, {}, marks=needs_avif),
        ("cmyk.jpg", PLAIN.convert("CMYK"), {}),
        ("cmyk.tif", PLAIN.convert("CMYK"), {}),
        ("palette.png", PALETTE, {}),
        ("clear_palette.png", PALETTE, {"transparency": bytes(256)}),
        ("clear_palette.gif", PALETTE, {"transparency": 0}),
        ("clear.png", Image.new("RGBA", (40, 30), (*COLOR, 0)), {}),
        *(
            (name, PLAIN, {"save_all": True, "append_images": [Image.new("RGB", (40, 30), (0, 0, 255))], **options})
            for name, options in (("moving.gif", {}), ("moving.webp", {"lossless": True}), ("moving.png", {}))
        ),
    ],
)
def test_a_picture_is_told_by_content_and_read_in_its_colors(tmp_path, recwarn, name, picture, options):
    picture.save(tmp_path / name, **options)
    (path,) = find_photos([tmp_path])
    photo = read_photo(path)
    assert photo.shape == (30, 40, 3) and photo.dtype == np.uint8
    assert np.abs(photo.astype(int) - COLOR).max() <= 3
    assert not recwarn.list


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif", "grey16.png", "float.tif", "a.avif"])
def test_a_photo_is_turned_as_its_camera_noted(tmp_path, name):
    if name == "a.avif" and not features.check("avif"):
        pytest.skip("Pillow without AVIF")
    exif = Image.Exif()
    exif[0x0112] = 6
    ramp = np.linspace(0, 1, 1200, dtype=np.float32).reshape(30, 40)
    deep = {"grey16.png": (ramp * 65535).astype(np.uint16), "float.tif": ramp}.get(name)
    (PLAIN if deep is None else Image.fromarray(deep)).save(tmp_path / name, exif=exif)
    assert read_photo(tmp_path / name).shape == (40, 30, 3)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
def test_damaged_notes_of_the_camera_do_not_matter(tmp_path):
    PLAIN.save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert read_photo(tmp_path / "a.jpg").shape == (30, 40, 3)


RAMP = np.linspace(0, 1, 1200).reshape(30, 40)


@pytest.mark.parametrize("kind", [np.float32, np.uint16, np.int32])
@pytest.mark.parametrize("white", [1, 255, 65535])
def test_grey_of_more_than_8_bits_is_scaled(tmp_path, kind, white):
    Image.fromarray((RAMP * white).round(4).astype(kind)).save(tmp_path / "grey.tif")
    photo = read_photo(tmp_path / "grey.tif").astype(float)
    if kind is np.float32 or white > 1:
        assert np.abs(photo - RAMP[..., None] * 255).max() <= 1
    assert photo.min() == 0 and photo.max() == 255


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (RAMP.astype(np.float32) * 4, "0 to 4"),
        (RAMP.astype(np.float32) - 0.5, "-0.5 to 0.5"),
        (np.full((30, 40), np.nan, np.float32), "nan to nan"),
        ((RAMP * 4095).astype(np.uint16), "0 to 4095"),
        ((RAMP * 2**30).astype(np.int32), "0 to 1.07374e"),
    ],
)
def test_grey_of_another_scale_is_refused_by_name(tmp_path, values, said):
    Image.fromarray(values).save(tmp_path / "grey.tif")
    wanted = rf"an image in grey\.tif, got one that cannot be read: values from {said}.*0…1, 0…255 and 0…65535\. Leave"
    with pytest.raises(FaceError, match=wanted):
        read_photo(tmp_path / "grey.tif")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "an empty file"),
        (b"<!DOCTYPE html>", "another kind of file"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "another kind of file"),
        (b"BM" + bytes(200), "one that cannot be read: "),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "another kind of file|one that cannot be read"),
    ],
)
def test_a_damaged_picture_is_named(tmp_path, content, said):
    (tmp_path / "a.jpg").write_bytes(content)
    (path,) = find_photos([tmp_path])
    with pytest.raises(FaceError, match=rf"an image in a\.jpg, got ({said})"):
        read_photo(path)


def test_a_heic_photo_is_read_or_says_what_to_install(tmp_path, caplog):
    (tmp_path / "IMG_1.jpg").write_bytes(HEIC.read_bytes())  # as some phones name them
    if importlib.util.find_spec("pillow_heif"):
        (path,) = find_photos([tmp_path])
        assert np.abs(read_photo(path)[16, [8, 40]].astype(int) - [COLOR, (40, 60, 160)]).max() < 4
        return
    with pytest.raises(
        FaceError, match=r"photo \(.*\), got none in .*, only IMG_1.jpg \(a HEIC photo: install pillow-he"
    ):
        find_photos([tmp_path])
    with pytest.raises(
        FaceError, match=r"an image in two_colors\.heic, got a HEIC photo: install pillow-heif to read it"
    ):
        read_photo(HEIC)
    PLAIN.save(tmp_path / "a.png")
    assert find_photos([tmp_path]) == [tmp_path / "a.png"]
    assert (
        caplog.messages[-1]
        == f"ID-EA: left out in {tmp_path}: IMG_1.jpg (a HEIC photo: install pillow-heif to read it)"
    )


def test_hidden_files_are_passed_over_and_others_are_named_once(tmp_path, caplog):
    for name in ("0.png", "deep/1.png", "deep/@eaDir/1.png", ".trash/2.png", "__MACOSX/0.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        PLAIN.save(tmp_path / name)
    for name in ("._0.png", ".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX/._0.png"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X" + bytes(60))
    (tmp_path / "0.txt").write_text("on a beach")
    assert find_photos([tmp_path]) == [tmp_path / "0.png"]
    assert find_photos([tmp_path], deep=True) == [tmp_path / "0.png", tmp_path / "deep" / "1.png"]
    assert not caplog.messages
    (tmp_path / "letter.pdf").write_bytes(b"%PDF-1.7\n")
    (tmp_path / "readme.txt").write_text("no caption")
    (tmp_path / "film.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(99))
    assert find_photos([tmp_path]) == find_photos([tmp_path]) == [tmp_path / "0.png"]
    assert caplog.messages == [f"ID-EA: left out in {tmp_path}: film.mp4, letter.pdf, readme.txt (no image)"]


def test_photos_that_cannot_be_read_may_be_skipped(tmp_path):
    PLAIN.save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"")
    paths = find_photos([tmp_path])
    with pytest.raises(FaceError, match=r"an image in b\.png, got an empty file"):
        read_photos(paths)
    files, photos, unread = read_photos(paths, skip=True)
    assert files == [tmp_path / "a.png"] and photos[0].shape == (30, 40, 3)
    assert unread == {tmp_path / "b.png": "an empty file"}
    with pytest.raises(FaceError, match=r"an image in b\.png"):
        read_photos([tmp_path / "b.png"], skip=True)


@pytest.mark.parametrize(
    ("shape", "size"),
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
    with pytest.raises(IdentityFileError, match="a file of format id-ea-face, got format other in"):
        load_embeds(write_tensors(path, {"x": torch.zeros(1)}, {"format": "other"}))
