"""Prediction types of diffusers' schedulers, and the noise schedule of checkpoints in one file."""

from __future__ import annotations

from typing import Any

from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from ...diffusion.schedule import FLOW
from ...errors import BaseModelError

PREDICTION_TYPES = {"eps": "epsilon", "v": "v_prediction"}
"""Our name → diffusers'."""


def prediction_of(scheduler: Any) -> str:
    """A scheduler's key in `PREDICTION_TYPES`, or `FLOW`.

    Raises:
        BaseModelError: another prediction type.
    """
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        return FLOW
    kind = scheduler.config.prediction_type
    for prediction, name in PREDICTION_TYPES.items():
        if name == kind:
            return prediction
    raise BaseModelError("a model that predicts noise or velocity", kind, "Choose another base model.")


def stable_diffusion_schedule(prediction: str, zero_terminal_snr: bool = False) -> DDIMScheduler:
    """The noise schedule of all Stable Diffusion models.

    Args:
        zero_terminal_snr: rescale the schedule so that the last step is pure noise (arXiv 2305.08891).
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
