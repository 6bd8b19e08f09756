"""Noise schedules: the equations, diffusers' own arithmetic, and what training and sampling make of them."""

import pytest
import torch
from diffusers import DDPMScheduler

from idea_core.diffusion.schedule import DISCRETE, DiscreteSchedule
from idea_core.headless.diffusers.schedule import PREDICTION_TYPES, stable_diffusion_schedule

TIMESTEPS = torch.tensor([0, 1, 400, 998, 999])


def schedule_and_diffusers(prediction: str, zero_terminal_snr: bool = False):
    theirs = DDPMScheduler.from_config(stable_diffusion_schedule(prediction, zero_terminal_snr).config)
    return DiscreteSchedule(theirs.alphas_cumprod, prediction), theirs


def image_and_noise(dtype: torch.dtype = torch.float32):
    return torch.randn(2, len(TIMESTEPS), 4, 8, 8, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("zero_terminal_snr", [False, True])
@pytest.mark.parametrize("prediction", DISCRETE)
def test_noise_and_targets_are_diffusers_own_bit_for_bit(prediction, zero_terminal_snr, dtype):
    ours, theirs = schedule_and_diffusers(prediction, zero_terminal_snr)
    image, noise = image_and_noise(dtype)
    assert torch.equal(ours.add_noise(image, noise, TIMESTEPS), theirs.add_noise(image, noise, TIMESTEPS))
    target = theirs.get_velocity(image, noise, TIMESTEPS) if theirs.config.prediction_type == "v_prediction" else noise
    assert torch.equal(ours.target(image, noise, TIMESTEPS), target)


@pytest.mark.parametrize("prediction", DISCRETE)
def test_a_right_output_tells_image_and_noise(prediction):
    schedule, _ = schedule_and_diffusers(prediction)
    image, noise = image_and_noise()
    noisy = schedule.add_noise(image, noise, TIMESTEPS)
    found = schedule.split(noisy, schedule.target(image, noise, TIMESTEPS), TIMESTEPS)
    assert all(torch.allclose(one, true, atol=1e-4) for one, true in zip(found, (image, noise)))


@pytest.mark.parametrize("prediction", DISCRETE)
def test_an_error_of_the_output_weighs_as_the_images_error_up_to_gamma(prediction):
    """The same small error of the image, put into the output, counts min(scale · SNR, gamma) times at any step."""
    alphas = torch.tensor([0.999, 0.9, 0.5, 0.1, 0.01])
    schedule, steps = DiscreteSchedule(alphas, prediction), torch.arange(5)
    image, noise = image_and_noise()
    noisy, target = schedule.add_noise(image, noise, steps), schedule.target(image, noise, steps)
    output = target + 0.01 * torch.ones_like(target)
    error = (schedule.split(noisy, output, steps)[0] - image).square().mean((1, 2, 3))
    weighted = schedule.min_snr(steps, 2, 5) * (output - target).square().mean((1, 2, 3))
    snr = alphas / (1 - alphas)
    assert torch.allclose(schedule.snr, snr, rtol=1e-3)
    assert torch.allclose(weighted, (5 * snr).clamp(max=2) * error, rtol=2e-2)


def test_weights_stay_finite_from_the_first_step_to_pure_noise():
    for prediction in DISCRETE:
        schedule, _ = schedule_and_diffusers(prediction, zero_terminal_snr=True)
        weights = schedule.min_snr(torch.arange(1000), 2, 5)
        assert weights.shape == (schedule.num_timesteps,) == (1000,)
        assert weights.isfinite().all() and weights.max() <= 5 * (1 + 1e-6) and weights[0] < 0.01


def test_predictions_have_diffusers_words():
    assert tuple(PREDICTION_TYPES) == DISCRETE
