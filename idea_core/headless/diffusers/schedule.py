"""Noise schedules: what a model predicts, and the schedule of checkpoints that bring none."""

from __future__ import annotations

from diffusers import DDIMScheduler

from ...errors import BaseModelError

PREDICTION_TYPES = {"eps": "epsilon", "v": "v_prediction"}
"""What a UNet predicts → diffusers' word for it."""


def prediction_of(scheduler) -> str:
    """ "eps" or "v".

    Raises:
        BaseModelError: another parameterisation.
    """
    found = {kind: prediction for prediction, kind in PREDICTION_TYPES.items()}.get(scheduler.config.prediction_type)
    if found is None:
        kind = scheduler.config.prediction_type
        raise BaseModelError("a model that predicts noise or velocity", kind, "Choose another base model.")
    return found


def with_prediction(scheduler, prediction: str):
    """The same schedule for another prediction."""
    return type(scheduler).from_config(scheduler.config, prediction_type=PREDICTION_TYPES[prediction])


def stable_diffusion_schedule(prediction: str, zero_terminal_snr: bool = False) -> DDIMScheduler:
    """The noise schedule of all Stable Diffusion models.

    Args:
        zero_terminal_snr: scaled so that the last step is pure noise (arXiv 2305.08891).
    """
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=PREDICTION_TYPES[prediction],
        rescale_betas_zero_snr=zero_terminal_snr,
        timestep_spacing="trailing" if zero_terminal_snr else "leading",
    )
