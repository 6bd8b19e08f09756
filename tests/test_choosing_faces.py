"""Which face is taken, what is said about each photo, crops and masks; people between people, and likeness."""

import dataclasses

import numpy as np
import pytest
import torch
from face_models import write_face_pack
from PIL import Image
from portraits import ALICE, BOB, NOBODY, portrait, trio

from idea_core.errors import ConfigError, FaceError
from idea_core.faces import FacePack, FaceSettings, IdEmbeds, OnnxEngine, blend, encode_photos, plot
from idea_core.faces.encode import report
from idea_core.faces.likeness import Likeness, Scale, compare, described
from idea_core.faces.pictures import CHOSEN, OTHER, Cut, crop_face, draw_faces, face_mask, stack
from idea_core.faces.plot import POINT, draw_likeness


@pytest.fixture(scope="module")
def engine(tmp_path_factory) -> OnnxEngine:
    folder = tmp_path_factory.mktemp("tiny")
    write_face_pack(folder)
    return OnnxEngine(FacePack("tiny", folder), "cpu")


def place(engine, **settings) -> int:
    """Which face of the trio is taken, from left to right."""
    _, (found,) = encode_photos(engine, [trio()], FaceSettings(**settings))
    return [face is found.chosen for face in found.faces].index(True)


def test_each_rule_takes_its_face(engine):
    alice, _ = encode_photos(engine, [portrait(ALICE)])
    bob, _ = encode_photos(engine, [portrait(BOB)])
    assert place(engine) == place(engine, face="largest") == 1
    assert place(engine, face="left-most") == 0
    assert place(engine, face="right-most") == 2
    assert [place(engine, face="by number", number=n) for n in (1, 2, 3)] == [0, 1, 2]
    assert place(engine, face="nearest", nearest_to=bob) == 1
    assert place(engine, face="nearest", nearest_to=alice) in (0, 2)
    _, (found,) = encode_photos(engine, [trio()], FaceSettings("most certain"))
    assert found.chosen.score == max(face.score for face in found.faces)


def test_a_face_below_the_minimum_score_does_not_count(engine):
    _, (found,) = encode_photos(engine, [trio()])
    scores = sorted(face.score for face in found.faces)
    _, (fewer,) = encode_photos(engine, [trio()], FaceSettings(min_score=(scores[0] + scores[1]) / 2))
    assert len(fewer.faces) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"face": "by number", "number": 4}, "face 4 in photo 0, got 3 of them. Choose a smaller number"),
        ({"min_score": 0.99}, "a face in photo 0, got none in 640 × 300 pixels, .* at detector sizes 640 to 256"),
        ({"aligned": True}, "photo 0 to be a square crop of a face, got 640 × 300 pixels"),
    ],
)
def test_no_such_face_is_said(engine, settings, message):
    with pytest.raises(FaceError, match=message):
        encode_photos(engine, [trio()], FaceSettings(**settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"face": "prettiest"}, "face one of largest, .*, got prettiest. Change face"),
        ({"face": "nearest"}, "ID_EMBEDS that the face is nearest to, got none"),
        ({"number": 0}, "number at least 1, got 0"),
        ({"min_score": 0.0}, "min_score above 0, got 0"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ConfigError, match=message):
        FaceSettings(**settings)


def test_photos_without_a_face_are_left_out_on_request(engine):
    photos = [NOBODY, portrait(), NOBODY, portrait(x=130)]
    embeds, found = encode_photos(engine, photos, FaceSettings(skip=True))
    expected, _ = encode_photos(engine, [photos[1], photos[3]])
    assert torch.equal(embeds.embeds, expected.embeds)
    assert [bool(f.left_out) for f in found] == [True, False, True, False]
    assert report(found).startswith("photo 0: left out, no face used: none in 320 × 240 pixels")
    assert report(found).splitlines()[-1] == "2 of 4 photos used, mean cosine to their mean 1.00"
    with pytest.raises(FaceError, match="a face in at least one photo, got none in 2"):
        encode_photos(engine, [NOBODY, NOBODY], FaceSettings(skip=True))


def test_another_person_is_named_and_left_out_on_request(engine):
    photos = [portrait(ALICE), portrait(ALICE, 120, 110, 80, seed=3), portrait(BOB), portrait(ALICE, x=200, seed=1)]
    _, found = encode_photos(engine, photos)
    assert [f.outlier for f in found] == [False, False, True, False]
    assert not any(f.left_out for f in found)
    assert "photo 2: face 1 of 1" in report(found)
    assert report(found).splitlines()[2].endswith("looks like another person")
    embeds, found = encode_photos(engine, photos, FaceSettings(leave_out_outliers=True))
    expected, _ = encode_photos(engine, [photos[0], photos[1], photos[3]])
    assert torch.allclose(embeds.mean, expected.mean, atol=1e-6)
    assert report(found).splitlines()[2].endswith("looks like another person: left out")
    assert found[2].cosine < 0.5 < found[0].cosine
    assert (draw_faces(found[2]) == CHOSEN).all(-1).sum() == 0 < (draw_faces(found[2]) == OTHER).all(-1).sum()
    with pytest.raises(FaceError, match="photos of one person, got 2 photos, none of which looks like"):
        encode_photos(engine, [portrait(ALICE), portrait(BOB)], FaceSettings(leave_out_outliers=True))


@pytest.mark.parametrize("offset", [0.0, 0.32])
def test_another_person_is_named_where_all_faces_look_a_little_alike(offset):
    axes = torch.eye(512)

    def photo_of(person: int, number: int) -> torch.Tensor:
        own = 0.75 - offset  # cosines of .75 to oneself and of `offset` to others
        return offset**0.5 * axes[0] + own**0.5 * axes[1 + person] + 0.25**0.5 * axes[100 + number]

    rows = torch.stack([photo_of(0, 0), photo_of(0, 1), photo_of(1, 2), photo_of(0, 3)])
    assert IdEmbeds(rows, torch.ones(4)).outliers().tolist() == [False, False, True, False]
    assert not IdEmbeds(rows[[0, 1, 3]], torch.ones(3)).outliers().any()
    assert not IdEmbeds(rows[:1], torch.ones(1)).outliers().any()


def test_smaller_detector_sizes_are_tried_in_turn(engine):
    tried = []

    class Longsighted(OnnxEngine):
        """Finds faces at small detector sizes alone, as real detectors do where a face fills the photo."""

        def __init__(self):
            self.__dict__ |= vars(engine)

        def detect(self, photo, size, min_score):
            tried.append((photo.shape[1], size))
            return super().detect(photo, size, min_score) if size < 500 else []

    _, (found,) = encode_photos(Longsighted(), [portrait()])
    assert tried == [(320, 640), (480, 640), (320, 512), (480, 512), (320, 384)]
    assert np.abs(found.chosen.center - [160, 120]).max() < 10


@pytest.mark.parametrize("angle", [-180, -90, -30, 0, 30, 90])
def test_upright_crops_have_level_eyes(engine, angle):
    picture = portrait(width=480, height=480, x=240, y=240, angle=angle)
    _, (found,) = encode_photos(engine, [picture])
    cut = Cut(256, upright=True)
    (face,) = engine.detect(crop_face(picture, found.chosen, cut))
    assert abs(np.rad2deg(face.tilt)) < 2
    assert np.abs(face.keypoints.mean(0) - 128).max() < 14
    mask = face_mask(found.chosen, cut)
    assert mask.shape == (256, 256) and mask.min() == 0 and mask.max() == 1
    assert all(mask[int(y), int(x)] == 1 for x, y in face.keypoints)
    assert 0.1 < mask.mean() < 0.4


def test_level_faces_are_cut_alike_either_way(engine):
    picture = portrait()
    (face,) = engine.detect(picture)
    level = dataclasses.replace(face, keypoints=face.keypoints.copy())
    level.keypoints[1, 1] = level.keypoints[0, 1]
    plain, upright = (crop_face(picture, level, Cut(128, upright=u)).astype(int) for u in (False, True))
    assert np.abs(plain - upright).mean() < 4


@pytest.mark.parametrize(("size", "margin"), [(512, 1.5), (768, 2.0), (1024, 3.0)])
def test_crops_have_the_size_and_margin_asked_for(engine, size, margin):
    picture = portrait(width=640, height=640, x=320, y=320)
    (face,) = engine.detect(picture)
    cut = Cut(size, margin, upright=True)
    crop = crop_face(picture, face, cut)
    (inside,) = engine.detect(crop)
    assert crop.shape == (size, size, 3)
    assert (inside.box[2:] - inside.box[:2]).max() == pytest.approx(size / margin, rel=0.08)
    assert face_mask(face, cut).shape == (size, size)


def test_the_mask_lies_on_the_face_of_a_plain_crop(engine):
    picture = portrait(angle=40, width=400, height=400, x=60, y=70)
    (face,) = engine.detect(picture)
    mask = face_mask(face, Cut(256))
    (inside,) = engine.detect(crop_face(picture, face, Cut(256)))
    assert all(mask[int(y), int(x)] == 1 for x, y in inside.keypoints)


def test_aligned_crops_need_no_detector(engine):
    (face,) = engine.detect(portrait())
    small = engine.align(portrait(), face)
    large = np.asarray(Image.fromarray(small).resize((448, 448), Image.Resampling.BICUBIC))
    expected = torch.nn.functional.normalize(torch.from_numpy(engine.embed(portrait(), face)), dim=0)
    embeds, found = encode_photos(engine, [small, large], FaceSettings(aligned=True))
    assert torch.allclose(embeds.embeds[0], expected, atol=1e-6)
    assert embeds.embeds[1] @ expected > 0.99
    assert [f.chosen.score for f in found] == [1.0, 1.0]
    assert crop_face(large, found[1].chosen, Cut(256)).shape == (256, 256, 3)


HOSTILE = {
    "one pixel": np.full((1, 1, 3), 9, np.uint8),
    "a stripe": np.full((1, 3000, 3), 9, np.uint8),
    "another stripe": np.full((2000, 2, 3), 9, np.uint8),
    "noise": np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8),
    "RGBA": np.zeros((50, 50, 4), np.uint8),
    "grey": np.zeros((50, 50), np.uint8),
    "grey with a channel": np.zeros((50, 50, 1), np.uint8),
    "floats": np.zeros((50, 50, 3), np.float32),
    "NaN": np.full((50, 50, 3), np.nan),
    "no pixels": np.zeros((50, 0, 3), np.uint8),
}


@pytest.mark.parametrize("picture", HOSTILE.values(), ids=HOSTILE)
def test_hostile_photos_are_named(engine, picture):
    with pytest.raises(FaceError, match="photo 1"):
        encode_photos(engine, [portrait(), picture])


def test_mixed_sizes_one_by_one_and_again_are_the_same(engine):
    sizes = [(320, 240, 60), (240, 320, 80), (640, 480, 150), (4928, 3264, 900)]
    photos = [portrait(width=w, height=h, x=w // 2, y=h // 2, size=s) for w, h, s in sizes]
    together, _ = encode_photos(engine, photos)
    again, _ = encode_photos(engine, photos)
    alone = torch.cat([encode_photos(engine, [picture])[0].embeds for picture in photos])
    assert torch.equal(together.embeds, again.embeds)
    assert (together.embeds - alone).abs().max() <= 1e-6
    assert (together.embeds @ together.mean).min() > 0.9


def test_previews_of_different_sizes_become_one_batch():
    small, large = np.full((2, 3, 3), 7, np.uint8), np.full((4, 2, 3), 9, np.uint8)
    batch = stack([small, large])
    assert batch.shape == (2, 4, 3, 3)
    assert (batch[0, :2] == 7).all() and not batch[0, 2:].any() and (batch[1, :, :2] == 9).all()


# --- people between people, and likeness ------------------------------------------------------------


def people(*rows: list[float]) -> IdEmbeds:
    """Embeddings that lie in the plane of the first two axes, at these angles in degrees."""
    angles = torch.deg2rad(torch.tensor(rows, dtype=torch.float64))
    embeds = torch.zeros(len(rows), 512)
    embeds[:, 0], embeds[:, 1] = angles.cos(), angles.sin()
    return IdEmbeds(embeds, torch.ones(len(rows)))


@pytest.mark.parametrize(("weight", "angle"), [(0.0, 0), (0.25, 20), (0.5, 40), (1.0, 80)])
def test_a_blend_lies_on_the_arc_between_two(weight, angle):
    between = blend(people(0.0), people(80.0), weight)
    assert between.embeds.shape == (1, 512) and between.scores.tolist() == [1.0]
    assert torch.allclose(between.mean, people(float(angle)).mean, atol=1e-6)


def test_blends_that_cannot_be():
    same = blend(people(10.0), people(10.0), 0.3)
    assert torch.allclose(same.mean, people(10.0).mean, atol=1e-6)
    with pytest.raises(FaceError, match="two people, got opposite embeddings"):
        blend(people(0.0), people(180.0), 0.5)
    with pytest.raises(ConfigError, match=r"a weight in 0…1, got 1\.5"):
        blend(people(0.0), people(90.0), 1.5)


def test_the_scale_is_set_by_the_references():
    references = people(-20.0, 20.0)  # each is 40° from the other
    scale = Scale.of(references, people(80.0, -80.0))
    assert scale.same == pytest.approx(np.cos(np.deg2rad(40)), abs=1e-6)
    assert scale.other == pytest.approx(np.cos(np.deg2rad(80)), abs=1e-6)
    assert scale.percent(scale.same) == pytest.approx(100) and scale.percent(scale.other) == pytest.approx(0)
    assert Scale.of(references).other == 0.0
    assert Scale.of(people(0.0)).percent(0.9) is None


@pytest.mark.parametrize(
    ("references", "others", "said"),
    [
        (people(-40.0, 40.0), people(90.0), "a cosine of 0.17 and 0 % one of 0.00"),  # of two people
        (people(-50.0, 50.0), people(90.0), "a cosine of -0.17 and 0 % one of 0.00"),
        (people(-20.0, 20.0), people(48.0), "a cosine of 0.77 and 0 % one of 0.67"),  # the others are like the person
        (people(-20.0, 20.0), people(0.0), "a cosine of 0.77 and 0 % one of 1.00"),
    ],
)
def test_a_scale_whose_ends_are_near_gives_no_percent(references, others, said):
    scale = Scale.of(references, others)
    likeness = Likeness((0.9, None), scale)
    assert scale.percent(0.9) is None and likeness.percent is None
    assert described(0.9, scale) == "cosine 0.90"
    lines = likeness.report().splitlines()
    assert not [line for line in lines[:-1] if " = " in line]
    assert lines[-1].startswith(f"scale: no percent: 100 % would be {said}, too near to each other: the reference")
    drawn = draw_likeness(likeness)
    assert not (drawn == plot.SAME).all(-1).any() and not (drawn == plot.OTHER).all(-1).any()
    with_scale = draw_likeness(Likeness((0.9, None), Scale.of(people(-20.0, 20.0), people(90.0))))
    assert (with_scale == plot.SAME).all(-1).any() and (with_scale == plot.OTHER).all(-1).any()


def test_pictures_are_compared_with_a_person(engine):
    references, _ = encode_photos(engine, [portrait(), portrait(size=80, seed=2), portrait(x=120, seed=4)])
    strangers, _ = encode_photos(engine, [portrait(BOB)])
    pictures = [NOBODY, portrait(BOB), portrait(size=90, seed=7), trio()]
    result = compare(engine, pictures, references, strangers)
    assert result.cosines[0] is None and result.order[0] == 2 and result.order[-1] == 0
    assert result.detection_rate == 0.75
    assert result.scale.percent(result.cosines[2]) == pytest.approx(100, abs=15)
    assert result.scale.percent(result.cosines[1]) == pytest.approx(0, abs=5)
    assert result.mean == pytest.approx(np.mean([result.cosines[i] for i in (1, 2, 3)]))
    nearest = compare(engine, pictures, references, strangers, FaceSettings("nearest", nearest_to=references))
    assert nearest.cosines[3] > 0.8 > result.cosines[3]
    lines = result.report().splitlines()
    assert lines[0] == "image 2: cosine 1.00 = 100 %" and lines[3] == "image 0: no face"
    assert "a face in 75 % of the images" in lines[4]
    assert lines[5] == f"scale: 100 % is a cosine of {result.scale.same:.2f}; 0 % one of {result.scale.other:.2f}"


def test_likeness_of_nothing(engine):
    references, _ = encode_photos(engine, [portrait()])
    nobody = compare(engine, [NOBODY], references)
    assert nobody.mean is None and nobody.percent is None and nobody.detection_rate == 0
    assert nobody.report().endswith("scale: no percent: give two or more reference photos.")
    assert draw_likeness(nobody).shape == (360, 640, 3)
    with pytest.raises(FaceError, match="at least one image, got none"):
        compare(engine, [], references)


def test_the_plot_shows_a_point_for_each_face(engine):
    references, _ = encode_photos(engine, [portrait(), portrait(size=80, seed=2)])
    plots = [draw_likeness(compare(engine, shown, references)) for shown in ([portrait()], [portrait(), portrait(BOB)])]
    one, two = ((plot == POINT).all(-1).sum() for plot in plots)
    assert one > 40 and abs(two - 2 * one) <= 4
