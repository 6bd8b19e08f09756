"""More images at once where a device has the memory, and never more than that."""

import pytest
import torch
from tiny_pipeline import tiny_pipeline

from idea_core.diffusion.memory import memory_of, more_at_once
from idea_core.enhancers import drawing
from idea_core.enhancers.config import RefineConfig
from idea_core.enhancers.drawing import MOST, ImageSampler
from idea_core.headless.diffusers import DiffusersBackbone

EACH = 100  # bytes of an image


class Memory:
    """A device of which each image needs `EACH` bytes; it keeps how many images were computed at once."""

    def __init__(self, free: int):
        self._free, self.seen = free, []

    def free(self) -> int:
        return self._free

    def used_by(self, compute):
        result = compute()
        self.seen.append(len(result))
        return result, EACH * len(result)


def sampler(backbone, memory=None, at_first: int = 2) -> ImageSampler:
    config = RefineConfig(resolution=64, sampling_steps=2, guidance=3.0, sampling_batch_size=at_first)
    return ImageSampler(backbone, config, memory)


@pytest.fixture
def counts(monkeypatch) -> list[int]:
    """Images of each sampling."""
    seen, sample = [], drawing.sample
    monkeypatch.setattr(
        drawing, "sample", lambda *inputs: (seen.append(len(inputs[3])), sample(*inputs))[1]
    )  # the fourth is the noise
    return seen


@pytest.mark.parametrize(
    ("count", "used", "free", "expected"),
    [
        (4, 400, 10_000, 8),  # twice as many at most
        (8, 800, 10_000, 12),
        (12, 1200, 10_000, 12),
        (4, 400, 1300, 6),  # in half of the free memory
        (4, 400, 700, 4),  # never fewer: running out of memory is met elsewhere
        (4, 400, 0, 4),
        (30, 3000, 10**9, 30),  # wanted by the user
        (4, 0, 10_000, 8),
    ],
)
def test_as_many_at_once_as_half_of_the_free_memory_holds(count, used, free, expected):
    assert more_at_once(count, used, free, MOST) == expected


@pytest.mark.parametrize(
    ("free", "expected"),
    [
        pytest.param(10**6, [2, 4, 8, 10], id="much", marks=pytest.mark.slow),
        pytest.param(2 * 500, [2, 4, 5, 5, 5, 3], id="some"),
        pytest.param(0, [2] * 12, id="none", marks=pytest.mark.slow),
    ],
)
def test_images_are_the_same_however_many_are_sampled_at_once(counts, free, expected):
    backbone = DiffusersBackbone(tiny_pipeline())
    prompts, seeds = [f"a {letter}" for letter in "abcdefghijklmnopqrstuvwx"], range(24)
    usual = sampler(backbone, at_first=1).draw(prompts, seeds)[1]
    counts.clear()
    memory = Memory(free)
    images = sampler(backbone, memory).draw(prompts, seeds)[1]
    assert counts == expected
    assert max(memory.seen) * EACH <= max(2 * EACH, free / 2)
    assert (images - usual).abs().max() <= 1e-5 and usual.std() > 0.01


def test_after_memory_ran_out_there_are_fewer_for_good(counts, monkeypatch):
    backbone, memory = DiffusersBackbone(tiny_pipeline()), Memory(10**6)
    sample = drawing.sample

    def short(*inputs):
        if len(inputs[3]) > 4:
            raise torch.OutOfMemoryError("out of memory")
        return sample(*inputs)

    monkeypatch.setattr(drawing, "sample", short)
    own = sampler(backbone, memory)
    own.draw(["a"] * 24, range(24))
    own.draw(["a"] * 8, range(8))
    assert memory.seen == [2, 4] and counts == [2, 4, 4, 4, 4, 4, 2, 4, 4]


def test_a_processor_does_not_tell_of_its_memory(counts):
    assert memory_of(torch.device("cpu")) is None
    sampler(DiffusersBackbone(tiny_pipeline())).draw(["a"] * 6, range(6))
    assert counts == [2, 2, 2]
