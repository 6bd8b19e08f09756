"""A person from a face alone, drawn, compared and corrected, in the miniature world."""

import dataclasses

import pytest
import torch
from test_across import trained
from test_trainer import weights_hash
from tiny_pipeline import tiny_pipeline

from idea_core.describe import last_likeness
from idea_core.diffusers_backbone import DiffusersBackbone, load_pipeline
from idea_core.errors import ConfigError, FaceError, TrainingError
from idea_core.refine import Look, Refiner
from miniature.methods import REFINING
from miniature.trial import Stranger
from miniature.world import BASE, enhancer, face_engine

QUICK = dataclasses.replace(REFINING, pictures=6)


@pytest.fixture(scope="module")
def base() -> DiffusersBackbone:
    return DiffusersBackbone(load_pipeline(BASE))


@pytest.fixture(scope="module")
def face() -> torch.Tensor:
    """Of a stranger's true pictures."""
    return torch.nn.functional.normalize(Stranger(43).references[0].mean(0), dim=0)


@pytest.fixture(scope="module")
def refined(base, face) -> tuple[Refiner, list[Look], list[Look]]:
    """With the looks that were better and better, and all of them."""
    refiner, seen = Refiner(base, enhancer(), face_engine(), QUICK), []
    return refiner, refiner.refine(face, lambda count, look: seen.append(look)), seen


def test_a_person_becomes_more_like(refined, face):
    _, better, seen = refined
    assert len(seen) == 4 and torch.equal(better[0].shown, face) and torch.equal(seen[0].shown, face)
    likeness = [look.likeness for look in better]
    assert likeness == sorted(set(likeness)) and likeness[-1] == max(look.likeness for look in seen)
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
    assert told["report"]["likeness"] == [[number, round(look.likeness, 4)] for number, look in enumerate(looks)]
    assert told["refine"] == QUICK.as_dict() and last_likeness(told) == round(looks[-1].likeness, 4)


def test_the_same_seed_gives_the_same_looks_and_leaves_the_base_as_it_was(base, face):
    before = weights_hash(base)
    once = dataclasses.replace(QUICK, rounds=1, pictures=2)
    first, second = ([], [])
    for seen in (first, second):
        Refiner(base, enhancer(), face_engine(), once).refine(face, lambda _, look, seen=seen: seen.append(look))
    assert len(first) == 2 and not torch.equal(first[0].shown, first[1].shown)
    for look, other in zip(first, second, strict=True):
        assert torch.equal(look.shown, other.shown) and torch.equal(look.images, other.images)
    last = dataclasses.replace(once, seed=2**64 - 1)
    (other, *_) = Refiner(base, enhancer(), face_engine(), last).refine(face)
    assert other.likeness != first[0].likeness
    assert weights_hash(base) == before


def test_a_correction_goes_on_from_the_best_look_and_half_as_far_after_one_that_did_not_help(base, face, monkeypatch):
    """What is drawn is made up here: whose face, and how alike."""
    drawn = torch.nn.functional.normalize(torch.randn(5, 512, generator=torch.Generator().manual_seed(1)), dim=1)
    drawn[4] = 0  # nobody
    likeness, shown = [-0.2, -0.1, -0.15, 0.3, 0.4], []

    def look(face_shown, _):
        shown.append(face_shown)
        return Look(face_shown, likeness[len(shown) - 1], drawn[len(shown) - 1], torch.zeros(1, 8, 8, 3))

    refiner = Refiner(base, enhancer(), face_engine(), dataclasses.replace(QUICK, rounds=4))
    monkeypatch.setattr(refiner, "_look", look)
    better = refiner.refine(face)
    steps = [(0, 0.5), (1, 0.5), (1, 0.25), (3, 0.25)]  # from which look on, and how far
    for number, (start, rate) in enumerate(steps, 1):
        moved = torch.nn.functional.normalize(shown[start] + rate * (face - drawn[start]), dim=0)
        assert torch.allclose(shown[number], moved, atol=1e-6)
    assert [look.likeness for look in better] == [-0.2, -0.1, 0.3]  # not .4, where nobody is to be seen
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

    config = dataclasses.replace(QUICK, rounds=1, pictures=5, at_once=5, sampling_steps=1)
    small = Small(load_pipeline(BASE))
    looks = Refiner(small, enhancer(), face_engine(), config).refine(face)
    assert small.drawn == [2, 2, 1] * 2
    whole = Refiner(base, enhancer(), face_engine(), config).refine(face)
    assert looks[0].likeness == pytest.approx(whole[0].likeness, abs=1e-3)
    small.room = 0
    with pytest.raises(TrainingError, match="memory for a picture, got out of memory at 64 pixels. Lower the resol"):
        Refiner(small, enhancer(), face_engine(), config).refine(face)


def test_pictures_without_a_face_are_an_error():
    backbone, seen = DiffusersBackbone(tiny_pipeline()), []
    config = dataclasses.replace(QUICK, pictures=2, resolution=16, sampling_steps=2)
    refiner = Refiner(backbone, trained(backbone), face_engine(), config)
    with pytest.raises(FaceError, match="a face in 2 pictures that the base model draws of the person, got none"):
        refiner.refine(torch.nn.functional.normalize(torch.ones(512), dim=0), lambda *look: seen.append(look))
    assert len(seen) == 1  # what was drawn is shown nevertheless


def test_an_enhancer_for_another_base_is_refused():
    backbone = DiffusersBackbone(tiny_pipeline())
    with pytest.raises(ConfigError, match="an ID-Enhancer for Stable Diffusion 1"):
        Refiner(backbone, enhancer(), face_engine())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rounds": 0}, "rounds at least 1"),
        ({"pictures": 1.5}, "pictures at least 1"),
        ({"rate": 0.0}, "rate above 0"),
        ({"rate": float("nan")}, "rate above 0"),
        ({"resolution": 60}, "resolution a number that 8 divides"),
        ({"guidance": float("inf")}, "guidance at least 0"),
        ({"prompts": ("a photo",)}, "prompts with {} for the person"),
        ({"prompts": ()}, "prompts with {} for the person"),
    ],
)
def test_settings_out_of_bounds_are_said(changes, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(QUICK, **changes)
