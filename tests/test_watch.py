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
from idea_core.training.loop import copied
from idea_core.training.preview import Portrait, PreviewConfig, WatchConfig, watch_person
from idea_core.training.run import TrainingRun
from idea_core.training.trainer import Trainer
from miniature.trial import Stranger
from miniature.world import BASE, all_names, face_engine


@pytest.fixture
def backbone() -> DiffusersBackbone:
    return DiffusersBackbone(tiny_pipeline())


def run_with(backbone, tmp_path, watch: WatchConfig, likeness=None, steps: int = 6) -> TrainingRun:
    run = trainer(backbone, TrainConfig(steps=steps, batch_size=1))
    return TrainingRun(
        run, tmp_path / "a.training", "same", watch=watch_person(Portrait(run, watch.preview), watch, likeness)
    )


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_a_perfect_unet_brings_the_picture_back(prediction):
    backbone = DiffusersBackbone(tiny_pipeline(prediction=prediction))
    clean = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))

    def perfect(noisy, timesteps, _condition):
        """What a network says that knows the picture: the noise, or the velocity, that `noisy` holds then."""
        alphas = backbone.schedule.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        noise = (noisy - alphas.sqrt() * clean) / (1 - alphas).sqrt()
        return backbone.schedule.target(clean, noise, timesteps)

    backbone.predict = perfect
    empty = backbone.encode([backbone.read("")])
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(sample(backbone, empty, empty, noise, 5, 3.0), clean.expand(2, -1, -1, -1), atol=1e-3)


def test_a_prompt_and_a_seed_make_a_picture_of_their_own(backbone):
    run = trainer(backbone)
    with run.active():
        drawn = Portrait(run, PreviewConfig(("a {}", "b {}"), (0, 1), steps=2)).latents()
        alone = Portrait(run, PreviewConfig(("b {}",), (1,), steps=2)).latents()
    assert drawn.shape == (4, 4, 8, 8) and len(drawn.flatten(1).unique(dim=0)) == 4
    assert torch.allclose(drawn[3:], alone, rtol=1e-4, atol=1e-3)
    images = backbone.decode_images(drawn)
    assert images.shape == (4, 16, 16, 3) and images.min() >= 0 and images.max() <= 1


def test_a_training_ends_at_its_target(backbone, tmp_path):
    scores = iter([0.2, 0.7])
    run = run_with(backbone, tmp_path, WatchConfig(2, target=0.6), lambda _: next(scores))
    shown = []
    run.run(lambda done: shown.append((done.step, done.images is not None)))
    assert shown == [(1, False), (2, True), (3, False), (4, True)]
    report = run.report()
    assert report["steps_done"] == 4 and report["likeness"] == [(2, 0.2), (4, 0.7)]
    assert report["ended_early"] == "likeness 0.700 reached at step 4"


def test_a_training_whose_likeness_falls_goes_back_to_its_best(backbone, tmp_path):
    scores = iter([0.5, 0.6, 0.59, 0.55])
    run = run_with(backbone, tmp_path, WatchConfig(1), lambda _: next(scores))
    seen = {}
    run.run(lambda done: seen.setdefault(done.step, copied(run.training.weights())))
    assert run.report()["ended_early"] == "likeness fell to 0.550 at step 4; back to step 2 with 0.600"
    require_same(run.training.weights(), seen[2])


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
    assert len(broken.training.losses) == 3
    resumed = start(scores[2:])
    assert resumed.resume() == 3
    resumed.run()
    assert resumed.report()["likeness"] == whole.report()["likeness"]
    assert resumed.report()["ended_early"] == whole.report()["ended_early"]
    assert resumed.training.identity("a").digest() == whole.training.identity("a").digest()


def test_looking_changes_nothing(backbone, tmp_path):
    watched = run_with(backbone, tmp_path, WatchConfig(2), steps=4)
    watched.run()
    plain = trainer(DiffusersBackbone(tiny_pipeline()), TrainConfig(steps=4, batch_size=1))
    plain.run()
    assert watched.training.identity("a").digest() == plain.identity("a").digest()
    assert watched.report()["seconds"]["looks"] > 0 and not watched.report()["likeness"]


def test_odd_settings_are_refused():
    with pytest.raises(ConfigError, match="every at least 0, got -1"):
        WatchConfig(-1)
    with pytest.raises(ConfigError, match="previews at which likeness is measured"):
        WatchConfig(target=0.5)
    with pytest.raises(ConfigError, match="prompts with one {} for the person, got 'a photo of <alice>'"):
        PreviewConfig(("a photo of <alice>",))
    with pytest.raises(ConfigError, match="seeds with at least one seed"):
        PreviewConfig(seeds=())


def test_a_person_of_the_miniature_world_is_learnt_until_the_pictures_are_like_the_photos(tmp_path):
    person = Stranger(1, 4)
    seen = person.prepared(tmp_path / "photos")
    run = Trainer.of(
        DiffusersBackbone(load_pipeline(BASE)), seen.photos, seen.embeds.mean, TrainConfig(steps=80), all_names()
    )
    preview = PreviewConfig(("a photo of {}",), (0, 1, 2, 3), guidance=3.0)
    watch = watch_person(
        Portrait(run, preview), WatchConfig(4, preview, target=0.45), likeness_to(face_engine(), seen.embeds)
    )
    TrainingRun(run, tmp_path / "a.training", "same", watch=watch).run()
    assert "reached" in watch.stopping.reason and len(run.losses) < 80
    assert watch.stopping.scores[0][1] < 0.3 < 0.45 <= watch.stopping.scores[-1][1]
