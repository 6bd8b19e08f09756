"""The sampler against the exact solution for normally distributed images."""

import pytest
import torch
from tiny_flow import tiny_flow
from tiny_pipeline import tiny_pipeline

from idea_core.diffusion.sampling import empty_prompt, sample
from idea_core.diffusion.schedule import FlowSchedule, Schedule
from idea_core.headless.diffusers import DiffusersBackbone, FlowBackbone

SPREAD = 0.5  # standard deviation of the images


def parts(schedule: Schedule, level: torch.Tensor) -> tuple[float, float]:
    """Signal and noise at a level."""
    one, zero = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)
    levels = level[None]
    return schedule.add_noise(one, zero, levels).item(), schedule.add_noise(zero, one, levels).item()


@pytest.mark.parametrize("kind", ["eps", "v", "flow"])
def test_the_second_order_needs_fewer_steps(kind):
    backbone = DiffusersBackbone(tiny_pipeline(prediction="eps" if kind == "flow" else kind))
    if kind == "flow":
        backbone.schedule = FlowSchedule(3.0)
    schedule, noise = backbone.schedule, torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))

    def perfect(noisy, levels, _condition):
        """The output of a network that knows the images' distribution: the likeliest image, and the noise of it."""
        signal, sigma = parts(schedule, levels[0])
        clean = noisy * signal * SPREAD**2 / (signal**2 * SPREAD**2 + sigma**2)
        return schedule.target(clean, (noisy - signal * clean) / sigma, levels)

    backbone.predict = perfect
    condition = empty_prompt(backbone)

    def error(order: int, steps: int) -> float:
        first, last = (parts(schedule, level) for level in schedule.levels(steps)[[0, -2]])
        sizes = [(signal**2 * SPREAD**2 + sigma**2) ** 0.5 for signal, sigma in (first, last)]
        exact = noise * sizes[1] / sizes[0] * last[0] * SPREAD**2 / sizes[1] ** 2
        return ((sample(backbone, condition, condition, noise, steps, 1.0, order) - exact).norm() / exact.norm()).item()

    assert error(2, 12) < error(1, 48) / 2 < error(1, 12) / 4


def test_a_transformer_is_told_where_the_person_stands_also_beside_an_empty_prompt_of_equal_length():
    backbone, seen = FlowBackbone(tiny_flow("zimage")), []
    ids = backbone.tokenize("brad pitt")
    positive = backbone.encode(
        [backbone.read("a photo of {}")], {key: [backbone.embed_tokens(key, own)] for key, own in ids.items()}
    )
    predict = backbone.predict

    def watched(noisy, levels, condition):
        seen.append(condition)
        return predict(noisy, levels, condition)

    backbone.predict = watched
    sample(backbone, positive, positive._replace(places=None), torch.randn(2, 16, 4, 4), 1, 3.0)
    assert [one.places is not None for one in seen] == [True, False]
