"""Settings of image generation on diffusers."""

from __future__ import annotations

from dataclasses import dataclass

from ..settings import Settings, setting

SCHEDULERS = {
    "dpm++": "DPMSolverMultistepScheduler",
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler-a": "EulerAncestralDiscreteScheduler",
}
"""Name of a sampler → its diffusers class."""


@dataclass(frozen=True)
class GenerateConfig(Settings):
    """How images are sampled. The defaults are the published command's (arXiv 2507.11990, authors' code)."""

    steps: int = setting(50, "Sampling steps.", min=1)
    guidance: float = setting(7.5, "Guidance scale (CFG). 1 turns it off.")
    negative: str = setting("", "Negative prompt: what the images should not show.")
    seed: int = setting(0, "Seed of the first image; the others count up.", min=0, max=2**63 - 1)
    width: int | None = setting(None, "Width in pixels. Unset: the base model's own.", min=8, multiple_of=8)
    height: int | None = setting(None, "Height in pixels. Unset: the base model's own.", min=8, multiple_of=8)
    scheduler: str = setting("dpm++", "Sampler. Flow-matching models keep their own.", choices=tuple(SCHEDULERS))
    batch_size: int = setting(4, "Images sampled together. More images need more memory.", min=1)
