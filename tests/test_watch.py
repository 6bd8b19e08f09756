"""Looking at a training while it goes on, and ending it."""

import pytest
import torch
from helpers import require_same, trainer
from tiny_pipeline import tiny_pipeline

from idea_core import TrainConfig
from idea_core.diffusion.sampling import sample
from idea_core.errors import ConfigError
from idea_core.faces.likeness import likeness_to
from idea_core.headless.diffusers import DiffusersBackbone, load_pipeline
from idea_core.training.preview import PreviewConfig, draw_person
from idea_core.training.run import TrainingRun
from idea_core.training.trainer import Trainer
from idea_core.training.watch import Watch, WatchConfig
from miniature.trial import Stranger
from miniature.world import BASE, all_names, face_engine


@pytest.fixture
def backbone() -> DiffusersBackbone:
    return DiffusersBackbone(tiny_pipeline())


def run_with(backbone, tmp_path, watch: WatchConfig, likeness=None, steps: int = 6) -> TrainingRun:
    run = trainer(backbone, TrainConfig(steps=steps, batch_size=1))
    return TrainingRun(run, tmp_path / "a.training", "same", watch=Watch(run, watch, likeness))


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_a_perfect_unet_brings_the_picture_back(prediction):
    backbone = DiffusersBackbone(tiny_pipeline(prediction=prediction))
    clean = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))

    def perfect(noisy, timesteps, _condition):
        """What a network says that knows the picture: the noise, or the velocity, that `noisy` holds then."""
        one, zero = torch.ones_like(noisy), torch.zeros_like(noisy)
        signal, noise = backbone.add_noise(one, zero, timesteps), backbone.add_noise(zero, one, timesteps)
        error = (noisy - signal * clean) / noise
        return error if prediction == "eps" else signal * error - noise * clean

    backbone.predict = perfect
    empty = backbone.encode({"clip_l": [[]]})
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(sample(backbone, empty, empty, noise, 5, 3.0), clean.expand(2, -1, -1, -1), atol=1e-3)


def test_a_prompt_and_a_seed_make_a_picture_of_their_own(backbone):
    run = trainer(backbone)
    with run.kv_deltas():
        drawn = draw_person(run, PreviewConfig(("a {}", "b {}"), (0, 1), steps=2))
        alone = draw_person(run, PreviewConfig(("b {}",), (1,), steps=2))
    assert drawn.shape == (4, 4, 8, 8) and len(drawn.flatten(1).unique(dim=0)) == 4
    assert torch.allclose(drawn[3:], alone, rtol=1e-4, atol=1e-3)
    images = backbone.decode_images(drawn)
    assert images.shape == (4, 16, 16, 3) and images.min() >= 0 and images.max() <= 1


def test_a_training_ends_at_its_target(backbone, tmp_path):
    scores = iter([0.2, 0.7])
    run = run_with(backbone, tmp_path, WatchConfig(2, target=0.6), lambda _: next(scores))
    shown = []
    run.run(lambda step, images: shown.append((step, images is not None)))
    assert shown == [(1, False), (2, True), (3, False), (4, True)]
    report = run.report()
    assert report["steps_done"] == 4 and report["likeness"] == [(2, 0.2), (4, 0.7)]
    assert report["ended_early"] == "likeness 0.700 reached at step 4"


def test_a_training_whose_likeness_falls_goes_back_to_its_best(backbone, tmp_path):
    scores = iter([0.5, 0.6, 0.59, 0.55])
    run = run_with(backbone, tmp_path, WatchConfig(1), lambda _: next(scores))
    seen = {}
    run.run(lambda step, _: seen.setdefault(step, {k: w.clone() for k, w in run.trainer.weights().items()}))
    assert run.report()["ended_early"] == "likeness fell to 0.550 at step 4; back to step 2 with 0.600"
    require_same(run.trainer.weights(), seen[2])


def test_a_watched_training_that_breaks_off_goes_on_to_the_same_end(tmp_path):
    scores = [0.5, 0.6, 0.59, 0.55]

    def start(part: list[float]) -> TrainingRun:
        left = iter(part)
        return run_with(DiffusersBackbone(tiny_pipeline()), tmp_path, WatchConfig(1), lambda _: next(left))

    whole = start(scores)
    whole.run()
    broken = start(scores[:2])  # the third look fails
    with pytest.raises(StopIteration), broken:
        broken.run()
    assert len(broken.trainer.losses) == 3
    resumed = start(scores[2:])
    assert resumed.resume() == 3
    resumed.run()
    assert resumed.report()["likeness"] == whole.report()["likeness"]
    assert resumed.report()["ended_early"] == whole.report()["ended_early"]
    assert resumed.trainer.identity("a").digest() == whole.trainer.identity("a").digest()


def test_looking_changes_nothing(backbone, tmp_path):
    watched = run_with(backbone, tmp_path, WatchConfig(2), steps=4)
    watched.run()
    plain = trainer(DiffusersBackbone(tiny_pipeline()), TrainConfig(steps=4, batch_size=1))
    plain.run()
    assert watched.trainer.identity("a").digest() == plain.identity("a").digest()
    assert watched.report()["seconds"]["looks"] > 0 and not watched.report()["likeness"]


def test_odd_settings_are_refused():
    with pytest.raises(ConfigError, match="0 steps between two looks or more, got -1"):
        WatchConfig(-1)
    with pytest.raises(ConfigError, match="looks at which likeness is measured"):
        WatchConfig(target=0.5)
    with pytest.raises(ConfigError, match="a preview with one {} for the person, got 'a photo of <alice>'"):
        PreviewConfig(("a photo of <alice>",))
    with pytest.raises(ConfigError, match="a step, a seed and a prompt at least, got 12 steps, 0 seeds, 1 prompts"):
        PreviewConfig(seeds=())


def test_a_person_of_the_miniature_world_is_learnt_until_the_pictures_are_like_the_photos(tmp_path):
    person = Stranger(1, 4)
    seen = person.prepared(tmp_path / "photos")
    run = Trainer(
        DiffusersBackbone(load_pipeline(BASE)), seen.photos, seen.embeds.mean, TrainConfig(steps=80), all_names()
    )
    preview = PreviewConfig(("a photo of {}",), (0, 1, 2, 3), guidance=3.0)
    watch = Watch(run, WatchConfig(4, preview, target=0.45), likeness_to(face_engine(), seen.embeds))
    TrainingRun(run, tmp_path / "a.training", "same", watch=watch).run()
    assert "reached" in watch.ended and len(run.losses) < 80
    assert watch.scores[0][1] < 0.3 < 0.45 <= watch.scores[-1][1]
