"""A person from a face alone, drawn, compared and corrected, in the miniature world."""

import dataclasses

import pytest
import torch
from helpers import trained, weights_hash
from tiny_pipeline import tiny_pipeline

from idea_core.enhancers.refine import Candidate, Refiner
from idea_core.errors import ConfigError, FaceError, TrainingError
from idea_core.faces import FacePack, OnnxEngine
from idea_core.headless.diffusers import DiffusersBackbone, load_pipeline
from idea_core.identity.describe import last_likeness
from miniature.methods import REFINING
from miniature.trial import Stranger
from miniature.world import BASE, FACES, enhancer, face_engine

QUICK = dataclasses.replace(REFINING, num_images=6)


@pytest.fixture(scope="module")
def base() -> DiffusersBackbone:
    return DiffusersBackbone(load_pipeline(BASE))


@pytest.fixture(scope="module")
def face() -> torch.Tensor:
    """Of a stranger's true pictures."""
    return torch.nn.functional.normalize(Stranger(43).references[0].mean(0), dim=0)


@pytest.fixture(scope="module")
def refined(base, face) -> tuple[Refiner, list[Candidate], list[tuple[int, Candidate | None]]]:
    """With the looks that were better and better, and what was told on the way."""
    refiner, seen = Refiner(base, enhancer(), face_engine(), QUICK), []
    return refiner, refiner.refine(face, lambda drawn, look: seen.append((drawn, look))), seen


def test_a_person_becomes_more_like(refined, face):
    _, better, told = refined
    seen = [look for _, look in told if look]
    assert [drawn for drawn, _ in told] == [6, 6, 12, 12, 18, 18, 24, 24]
    assert [look is not None for _, look in told] == [False, True] * 4
    assert len(seen) == 4 and torch.equal(better[0].shown, face) and torch.equal(seen[0].shown, face)
    likeness = [look.similarity for look in better]
    assert likeness == sorted(set(likeness)) and likeness[-1] == max(look.similarity for look in seen)
    assert likeness[-1] > likeness[0] + 0.02
    assert better[-1].images.shape == (6, 64, 64, 3)


def test_a_refined_person_is_one_that_the_enhancer_gives(refined, face):
    refiner, looks, _ = refined
    person, shown = refiner.identity("ann", face, looks), enhancer().identity("ann", looks[-1].shown)
    plain = enhancer().identity("ann", face)
    for encoder, tokens in person.tokens.items():
        assert torch.equal(tokens, shown.tokens[encoder]) and not torch.equal(tokens, plain.tokens[encoder])
    assert torch.equal(person.grounding, shown.grounding)
    assert torch.equal(person.id_embeds, plain.id_embeds)  # whom it is meant to be, not whom the Enhancer was shown
    told = person.training
    assert told["report"]["likeness"] == [[number, round(look.similarity, 4)] for number, look in enumerate(looks)]
    assert told["refine"] == QUICK.as_dict() and last_likeness(told) == round(looks[-1].similarity, 4)


def test_the_same_seed_gives_the_same_looks_and_leaves_the_base_as_it_was(base, face):
    before = weights_hash(base)
    once = dataclasses.replace(QUICK, rounds=1, num_images=2)
    first, second = ([], [])
    for seen in (first, second):
        told = []
        Refiner(base, enhancer(), face_engine(), once).refine(face, lambda _, look, told=told: told.append(look))
        seen += [look for look in told if look]
    assert len(first) == 2 and not torch.equal(first[0].shown, first[1].shown)
    for look, other in zip(first, second, strict=True):
        assert torch.equal(look.shown, other.shown) and torch.equal(look.images, other.images)
    last = dataclasses.replace(once, seed=2**64 - 1)
    (other, *_) = Refiner(base, enhancer(), face_engine(), last).refine(face)
    assert other.similarity != first[0].similarity
    assert weights_hash(base) == before


def test_a_correction_goes_on_from_the_best_look_and_half_as_far_after_one_that_did_not_help(base, face, monkeypatch):
    """What is drawn is made up here: whose face, and how alike."""
    drawn = torch.nn.functional.normalize(torch.randn(5, 512, generator=torch.Generator().manual_seed(1)), dim=1)
    drawn[4] = 0  # nobody
    likeness, shown = [-0.2, -0.1, -0.15, 0.3, 0.4], []

    def look(face_shown, *_):
        shown.append(face_shown)
        return Candidate(face_shown, likeness[len(shown) - 1], drawn[len(shown) - 1], torch.zeros(1, 8, 8, 3))

    refiner = Refiner(base, enhancer(), face_engine(), dataclasses.replace(QUICK, rounds=4))
    monkeypatch.setattr(refiner, "_draw", look)
    better = refiner.refine(face)
    steps = [(0, 0.5), (1, 0.5), (1, 0.25), (3, 0.25)]  # from which look on, and how far
    for number, (start, rate) in enumerate(steps, 1):
        moved = torch.nn.functional.normalize(shown[start] + rate * (face - drawn[start]), dim=0)
        assert torch.allclose(shown[number], moved, atol=1e-6)
    assert [look.similarity for look in better] == [-0.2, -0.1, 0.3]  # not .4, where nobody is to be seen
    assert [look.images is None for look in better] == [True, True, False]


def test_fewer_pictures_at_a_time_where_memory_runs_out(base, face):
    class Small(DiffusersBackbone):
        """Has memory for so many pictures, with and without the person each."""

        room, drawn = 2, []

        def predict(self, noisy, timesteps, condition):
            if len(noisy) > 2 * self.room:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            self.drawn.append(len(noisy) // 2)
            return super().predict(noisy, timesteps, condition)

    config = dataclasses.replace(QUICK, rounds=1, num_images=5, sampling_batch_size=5, sampling_steps=1)
    small, told = Small(load_pipeline(BASE)), []
    looks = Refiner(small, enhancer(), face_engine(), config).refine(face, lambda drawn, _: told.append(drawn))
    assert small.drawn == [2, 2, 1] * 2 and told == [2, 4, 5, 5, 7, 9, 10, 10]
    whole = Refiner(base, enhancer(), face_engine(), config).refine(face)
    assert looks[0].similarity == pytest.approx(whole[0].similarity, abs=1e-3)
    small.decode_images = lambda latents: small.predict(torch.zeros(99), None, None)
    with pytest.raises(TrainingError, match="memory for an image, got out of memory at 64 pixels"):
        Refiner(small, enhancer(), face_engine(), config).refine(face)
    small.room = 0
    with pytest.raises(TrainingError, match="memory for an image, got out of memory at 64 pixels. Lower the resol"):
        Refiner(small, enhancer(), face_engine(), config).refine(face)


def test_pictures_without_a_face_are_an_error():
    backbone, seen = DiffusersBackbone(tiny_pipeline()), []
    config = dataclasses.replace(QUICK, num_images=2, resolution=16, sampling_steps=2)
    refiner = Refiner(backbone, trained(backbone), face_engine(), config)
    with pytest.raises(FaceError, match="a face in 2 images that the base model draws of the person, got none"):
        refiner.refine(torch.nn.functional.normalize(torch.ones(512), dim=0), lambda _, look: seen.append(look))
    assert [look is not None for look in seen] == [False, True]  # what was drawn is shown nevertheless


def test_a_person_who_is_hardly_the_wanted_one_and_another_prediction_are_warned_of(base, face, caplog):
    once = dataclasses.replace(QUICK, rounds=1, num_images=2, sampling_steps=4)
    other_prediction = dataclasses.replace(enhancer().base_ref, prediction="v")
    refiner = Refiner(base, dataclasses.replace(enhancer(), base_ref=other_prediction), face_engine(), once)
    assert "trained for a checkpoint of v prediction, and this one has eps" in caplog.text
    assert refiner.refine(face)[0].similarity > 0.25 and "similarity to the mean" not in caplog.text
    looks = refiner.refine(-face)  # whom nobody looks like
    assert looks[0].similarity < 0.25 and "the first images' similarity to the mean embedding is only" in caplog.text
    assert refiner.identity("ann", -face, looks).prediction == "eps"  # of the base model that drew it


def test_a_recogniser_alone_is_refused_before_anything_is_drawn(base):
    alone = OnnxEngine(FacePack("rec.onnx", FACES, "rec.onnx"), "cpu")
    with pytest.raises(FaceError, match="a face detector, got rec.onnx, a recogniser alone"):
        Refiner(base, enhancer(), alone, QUICK)


def test_an_enhancer_for_another_base_is_refused():
    backbone = DiffusersBackbone(tiny_pipeline())
    with pytest.raises(ConfigError, match="an ID-Enhancer for Stable Diffusion 1"):
        Refiner(backbone, enhancer(), face_engine())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rounds": 0}, "rounds at least 1"),
        ({"num_images": 1.5}, "num_images a whole number"),
        ({"step_size": 0.0}, "step_size above 0"),
        ({"step_size": float("nan")}, "step_size a finite number"),
        ({"resolution": 60}, "resolution a number that 8 divides"),
        ({"guidance": float("inf")}, "guidance a finite number"),
        ({"prompts": ("a photo",)}, "prompts with one {} for the person"),
        ({"prompts": ("{} beside {}",)}, "prompts with one {} for the person"),
        ({"prompts": ()}, "prompts with one {} for the person"),
    ],
)
def test_settings_out_of_bounds_are_said(changes, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(QUICK, **changes)
