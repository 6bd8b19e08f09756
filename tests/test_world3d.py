"""The world of people in three dimensions: people, pictures, captions, training."""

import dataclasses
import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from diffusers import StableDiffusionPipeline
from small_world import small_pipeline
from torch import nn

from idea_core.headless.diffusers.single_file import clip_tokenizer
from idea_core.headless.jobs.people import find_people
from miniature.training import Plan, Run
from world3d import album, captions, genes, names, people, photos, rasterise, scenes, words
from world3d.head import head
from world3d.judge_comparison import similarity
from world3d.person import expressed, neutral
from world3d.picture import keypoints, picture, prepare
from world3d.train_base import main as train_base
from world3d.train_judge import indices

PLAIN = scenes.Scene()


@pytest.fixture(scope="module")
def portraits():
    return [prepare(person) for person in people.held_out_people(3)]


def test_the_named_people():
    known = people.named_people()
    assert len({person.name for person in known}) == names.NAMED_PEOPLE == 400
    assert all(person.name.split()[0] in names.FIRST_NAMES for person in known)
    men = [person for person in known if person.name.split()[0] in names.MEN]
    assert all(person.person.sex > 0.5 for person in men) and 100 < len(men) < 300


def shape(person) -> np.ndarray:
    """(V · 3,) points of a head around their mean: how tall the body is does not count."""
    points = neutral(person)
    return (points - points.mean(0)).ravel()


def test_people_who_share_a_name_look_alike():
    shapes = np.stack([shape(person.person) for person in people.named_people()[:120]])
    relatives, strangers = [], []
    for a, b in itertools.combinations(range(len(shapes)), 2):
        one, other = people.named_people()[a], people.named_people()[b]
        shared = (one.first == other.first) + (one.last == other.last)
        (relatives if shared else strangers).append(np.linalg.norm(shapes[a] - shapes[b]))
    assert len(relatives) > 30
    assert np.mean(relatives) < 0.9 * np.mean(strangers)


def test_nobody_held_out_is_known():
    held_out = np.stack([shape(person) for person in people.held_out_people()])
    others = [person.person for person in people.named_people()] + people.other_people(100)
    nearest = min(np.linalg.norm(held_out - shape(person), axis=1).min() for person in others)
    spread = np.linalg.norm(held_out[:48] - held_out[48:], axis=1).mean()
    assert len(held_out) == people.HELD_OUT_PEOPLE == 96
    assert nearest > 0.2 * spread
    assert np.array_equal(held_out[5], shape(people.held_out_people(6)[5]))


def test_genes_that_are_not_there_are_not_read():
    with pytest.raises(ValueError, match="expected genes of shape"):
        genes.Genes(np.zeros(3))
    with pytest.raises(ValueError, match="expected to read at most"):
        genes.Genes(np.zeros(genes.COUNT)).normals(genes.COUNT + 1)


def test_every_word_is_one_token_here_and_in_openais_vocabulary(tmp_path):
    tokenizer, openai = words.build_tokenizer(tmp_path), clip_tokenizer()
    for word in words.words():
        assert len(tokenizer(word, add_special_tokens=False).input_ids) == 1
        assert len(openai(word, add_special_tokens=False).input_ids) == 1
    assert len(tokenizer("a photo of Alice Archer").input_ids) == 7  # with start and end


def test_the_nearest_triangle_is_drawn():
    square = np.array([[0, 0], [8, 0], [8, 8], [0, 8]], float)
    x, y = np.concatenate([square, square / 2 + 2]).T
    z = np.array([3.0] * 4 + [2.0] * 4)
    faces = np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
    ids, bary = np.full((8, 8), -1, np.int32), np.zeros((8, 8, 2))
    rasterise.rasterise(x, y, z, faces, np.zeros((8, 8)), ids, bary)
    assert set(np.unique(ids[2:6, 2:6])) == {2, 3}
    outside = np.ones((8, 8), bool)
    outside[2:6, 2:6] = False
    assert set(np.unique(ids[outside])) == {0, 1}
    assert (bary.sum(-1) <= 1 + 1e-9).all()


def test_a_picture_depends_on_person_and_scene_alone(portraits):
    first, again = picture(portraits[0], PLAIN), picture(prepare(portraits[0].person), PLAIN)
    assert first.shape == (scenes.SIZE, scenes.SIZE, 3) and first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert np.abs(first.astype(int) - picture(portraits[1], PLAIN)).mean() > 3


def test_a_scene_shows_what_it_says(portraits):
    def drawn(**scene):
        return picture(portraits[0], dataclasses.replace(PLAIN, grain=0.0, **scene)).astype(int)

    plain = drawn()
    wall = drawn(background=scenes.BACKGROUNDS.index("red"))
    assert wall[2, 2, 0] > 2 * wall[2, 2, 1] and np.ptp(plain[2, 2]) < 15
    changed = np.abs(drawn(hat=1) - plain).sum(-1) > 40
    assert changed[:30].sum() > 200 > changed[60:].sum()
    changed = np.abs(drawn(glasses=1) - plain).sum(-1) > 40
    assert changed[30:66].sum() > 40 and changed[75:].sum() == 0
    changed = np.abs(drawn(expression=scenes.EXPRESSIONS.index("surprised")) - plain).sum(-1) > 40
    assert changed[55:85, 30:66].sum() > 50
    corner = drawn(pattern=scenes.PATTERNS.index("striped"))[:12, :12].std()
    assert corner > 3 * plain[:12, :12].std()


def test_key_points_stand_on_what_they_name(portraits):
    for portrait in portraits:
        scene = dataclasses.replace(PLAIN, yaw=0.2, roll=0.05, grain=0.0)
        left, right, nose, mouth_left, mouth_right = keypoints(portrait, scene)
        assert left[0] < nose[0] < right[0] and mouth_left[0] < mouth_right[0]
        assert max(left[1], right[1]) < nose[1] < min(mouth_left[1], mouth_right[1])
        plain = picture(portrait, scene).astype(int)

        def middle(plain=plain, scene=scene, portrait=portrait, **worn):
            """Where the picture changes, as x and y."""
            changed = np.abs(picture(portrait, dataclasses.replace(scene, **worn)) - plain).sum(-1)
            rows, columns = np.mgrid[: scenes.SIZE, : scenes.SIZE]
            return np.array([(columns * changed).sum(), (rows * changed).sum()]) / changed.sum()

        assert np.abs(middle(glasses=1) - (left + right) / 2).max() < 5
        below = middle(expression=scenes.EXPRESSIONS.index("surprised"))
        assert abs(below[0] - (mouth_left[0] + mouth_right[0]) / 2) < 6 and below[1] > (left[1] + nose[1]) / 2
    twice = keypoints(portrait, scene, 2 * scenes.SIZE)
    assert np.allclose(twice, 2 * keypoints(portrait, scene))


def test_an_expression_moves_the_face_alone():
    person = people.held_out_people(1)[0]
    rest = neutral(person)
    moved = np.linalg.norm(expressed(rest, {"jawOpen": 1.0}) - rest, axis=1)
    assert moved.max() > 0.05
    assert np.abs(rest[moved > 1e-3][:, 1]).max() < np.abs(head().points[:, 1]).max()


def test_captions_say_what_there_is():
    scene = dataclasses.replace(PLAIN, background=7, hat=1, glasses=1, expression=1)
    assert scene.caption("Ada Webb") == (
        "a photo of Ada Webb, smiling, wearing a red hat and glasses, in front of an orange wall"
    )
    assert PLAIN.caption("Ada Webb", background=False) == "a photo of Ada Webb"
    said = [text for number in range(800) for text in captions.captions_of(number, album.scene_of(number))]
    known = [people.named_people()[album.person_of(number)].name for number in range(800) for _ in range(4)]
    named = np.mean([name in text for name, text in zip(known, said)])
    empty = np.mean([text == "" for text in said])
    assert 0.8 < named < 0.92 and 0.07 < empty < 0.13
    assert captions.captions_of(3, album.scene_of(3)) == captions.captions_of(3, album.scene_of(3))


def test_scenes_are_drawn_by_their_shares():
    drawn = [album.scene_of(number) for number in range(2000)]
    assert all(scenes.asked_for(scene.caption("Ada Webb")) == indices(scene) for scene in drawn)
    for key, shares in scenes.SHARES.items():
        counts = Counter(getattr(scene, key) for scene in drawn)
        assert [counts[choice] / 2000 for choice in range(len(shares))] == pytest.approx(shares, abs=0.04)
    assert len({tuple(indices(scene)) for scene in drawn}) > 300


def test_folders_of_people_are_as_a_comparison_reads_them(tmp_path):
    photos.write_person(tmp_path / "person00", 0, people.held_out_people(1)[0], photos.Counts(2, 3, 2, 1))
    (person,), faults = find_people(tmp_path)
    assert not faults and len(person.photos) == 2 and len(person.references) == 3
    assert person.settings == {"seed": 0} and all(prompt.startswith("a photo of {}") for prompt in person.prompts)
    note = person.photos[0].with_suffix(".txt").read_text("utf-8")
    assert note.endswith("wall") and "photo" not in note


def test_images_without_a_face_count_as_no_similarity():
    nobody = np.full((1, 2), np.nan)
    images = np.concatenate([[[2.0, 0.0]], nobody])
    references = np.concatenate([[[1.0, 0.0], [0.0, 3.0]], nobody])
    assert similarity(images, references) == pytest.approx(0.25)  # (1 + 0 + 0 + 0) / 4


def test_people_whose_true_images_are_written(tmp_path):
    photos.write_person(tmp_path / "ann", 0, people.held_out_people(1)[0], photos.Counts(1, 1, 2, 2))
    prompts = (tmp_path / "ann" / "prompts.txt").read_text("utf-8").split("\n")
    assert len(list((tmp_path / "ann" / "true").iterdir())) == 2 * len(prompts) == 4
    rng = np.random.default_rng(0)
    scene = scenes.draw_scene(rng)
    again = photos.again_from(scene, rng)
    assert again.caption("{}") == scene.caption("{}") and (again.yaw, again.seed) != (scene.yaw, scene.seed)


def test_a_training_that_was_stopped_goes_on_as_if_it_had_not(tmp_path):
    def run(folder, stop=6):
        torch.manual_seed(0)
        net = nn.Linear(3, 2)
        training = Run(folder, {"net": net}, [{"params": list(net.parameters()), "lr": 0.1}], Plan(6, seed=1))
        for count in training.steps():
            if count == stop:
                break
            batch = torch.randn(4, 3, generator=training.generator)
            training.step((net(batch) - batch[:, :2]).square().mean())
            training.save()
        return net.state_dict(), training.averages["net"].state_dict()

    whole, whole_average = run(tmp_path / "whole")
    run(tmp_path / "parts", stop=2)
    parts, parts_average = run(tmp_path / "parts")
    for key in whole:
        assert torch.equal(whole[key], parts[key]) and torch.equal(whole_average[key], parts_average[key])
    assert (tmp_path / "whole" / "curve.csv").read_text("utf-8").startswith("step,minutes,loss")


@pytest.mark.slow
def test_a_base_model_goes_on_from_a_saved_one(tmp_path):
    base, pictures, output = tmp_path / "base", tmp_path / "pictures", tmp_path / "output"
    small_pipeline(tmp_path / "words").save_pretrained(base)
    drawn = album.open_pictures(pictures)
    drawn[: album.EACH] = np.random.default_rng(0).integers(0, 256, (album.EACH, *drawn.shape[1:]), np.uint8)
    album.tell_finished(pictures, album.EACH)
    where = ["--pictures", pictures, "--vae", base / "vae", "--base", base, "--work", tmp_path, "--output", output]
    run = CliRunner().invoke(train_base, [*map(str, where), "--rate", "0.1", "--steps", "2"], catch_exceptions=False)
    assert "the lesson ends" not in run.output and "step 2 " in run.output
    before, after = (StableDiffusionPipeline.from_pretrained(folder) for folder in (base, output))
    for part in ("unet", "text_encoder"):
        one, other = (getattr(pipeline, part).state_dict() for pipeline in (before, after))
        moved = max(float((one[name] - other[name]).abs().max()) for name in one)
        assert 1e-4 < moved < 1e-2  # two steps, while the rate still rises
