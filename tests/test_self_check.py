"""Before the first step of a training: its gradients are compared with its loss."""

import pytest
import torch
from helpers import MANY_NAMES, NAMES, face, photos
from tiny_pipeline import tiny_pipeline

from idea_core import Output, PersonSpec, TrainConfig, Trainer, train_person
from idea_core.errors import TrainingError
from idea_core.faces import IdEmbeds
from idea_core.headless.diffusers import DiffusersBackbone
from idea_core.method.axes import AXES_FOLDER
from idea_core.training.batches import Photos
from idea_core.training.self_check import Slopes, compare_slopes, require_right_gradients


class Halved(torch.autograd.Function):
    """Passes values on, and half of their gradient."""

    @staticmethod
    def forward(_context, values):
        return values.clone()

    @staticmethod
    def backward(_context, gradient):
        return gradient / 2


class Wrong(DiffusersBackbone):
    """A base model whose gradients are half of the right ones."""

    def predict(self, noisy, levels, condition):
        return super().predict(noisy, levels, condition._replace(context=Halved.apply(condition.context)))


def run_of(backbone, names=MANY_NAMES) -> Trainer:
    return Trainer.of(backbone, photos(), face(), TrainConfig(steps=2, batch_size=2), names)


@pytest.mark.parametrize("family", ["sd1", pytest.param("sdxl", marks=pytest.mark.slow)])
def test_right_gradients_pass_and_nothing_of_the_training_moves(family):
    run, plain = run_of(DiffusersBackbone(tiny_pipeline(family))), run_of(DiffusersBackbone(tiny_pipeline(family)))
    require_right_gradients(run)
    with run.active():
        slopes = compare_slopes(run, run.sampler.draw().parts(1)[0])
    assert slopes.measured[-1] == pytest.approx(slopes.gradient, rel=0.25) and slopes.gradient > 0
    run.sampler.generator.set_state(plain.sampler.generator.get_state())
    assert run.run() == plain.run()
    assert run.identity("ann").digest() == plain.identity("ann").digest()


def test_wrong_gradients_end_the_training_before_its_first_step(tmp_path):
    with pytest.raises(TrainingError, match="gradients that say how the loss changes, got a slope of .* update ID-EA"):
        require_right_gradients(run_of(Wrong(tiny_pipeline())))
    spec = PersonSpec("ann", [Photos(photos())], IdEmbeds(face()[None], torch.ones(1)), TrainConfig(steps=2))
    with pytest.raises(TrainingError, match="gradients that say how the loss changes"):
        train_person(Wrong(tiny_pipeline()), spec, Output(tmp_path / "a.safetensors", "same"))
    assert [path.name for path in tmp_path.iterdir()] == [AXES_FOLDER]


def test_no_gradient_at_all_is_wrong():
    class Blind(DiffusersBackbone):
        def predict(self, noisy, levels, condition):
            return super().predict(noisy, levels, condition) + 0 * condition.context.sum()

        def tabulate(self, prompts, n):
            return None  # captions go through `encode`

        def encode(self, prompts, vectors={}):
            condition = super().encode(prompts, vectors)
            return condition._replace(context=condition.context * 0 + condition.context.detach())

    with pytest.raises(TrainingError, match="got a slope of 0 where the loss has -?[0-9.e-]+[.] The base"):
        require_right_gradients(run_of(Blind(tiny_pipeline()), NAMES))


def test_differences_that_have_not_settled_say_nothing():
    assert not Slopes(1.0, (5.0, 3.0, 1.9)).disagree and not Slopes(1.0, (5.0, 1.1, 1.0)).disagree
    assert Slopes(1.0, (5.0, 2.1, 2.0)).disagree and Slopes(0.0, (0.3, 0.3)).disagree
    assert not Slopes(0.0, (0.0, 0.0, 0.0)).disagree and not Slopes(float("nan"), (float("nan"),) * 3).disagree
