"""Pictures of trained people, with diffusers' own pipelines and samplers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import diffusers
import torch
from PIL import Image

from ...diffusion.backbone import TextCondition
from ...errors import ConfigError
from ..config import SCHEDULERS, GenerateConfig
from .applied import People
from .text import TEXT_ENCODERS

Inputs = Mapping[str, torch.Tensor]
"""A pipeline's arguments for one prompt."""


def generate(
    pipeline, people: People, prompt: str, count: int, config: GenerateConfig = GenerateConfig()
) -> Iterator[tuple[int, Image.Image]]:
    """Seed and picture, `count` times.

    A picture depends on its seed, not on the others of its batch, up to the device's rounding.

    Raises:
        ConfigError: out of memory.
    """
    inputs = conditions(people, prompt, config.negative)
    seeds = range(config.seed, config.seed + count)
    for start in range(0, count, config.batch_size):
        batch = seeds[start : start + config.batch_size]
        yield from zip(batch, sample(pipeline, people, [inputs] * len(batch), batch, config))


def sample(
    pipeline, people: People, inputs: Sequence[Inputs], seeds: Sequence[int], config: GenerateConfig = GenerateConfig()
) -> list[Image.Image]:
    """Pictures at once, each of its own prompt and seed.

    Args:
        inputs: a picture's `conditions`; all of one length.

    Raises:
        ConfigError: out of memory.
    """
    pipeline.scheduler = getattr(diffusers, SCHEDULERS[config.scheduler]).from_config(pipeline.scheduler.config)
    joined = {key: torch.cat([part[key] for part in inputs]) for key in inputs[0]}
    joined = {key: part.to(pipeline.unet.device, pipeline.unet.dtype) for key, part in joined.items()}
    try:
        with torch.no_grad(), people.kv(), _text_encoders_aside(pipeline):
            return pipeline(
                **joined,
                num_inference_steps=config.steps,
                guidance_scale=config.guidance,
                width=config.width,
                height=config.height,
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            ).images
    except torch.cuda.OutOfMemoryError as error:
        got = f"out of memory at {len(seeds)} pictures at once"
        raise ConfigError("memory for the pictures", got, "Lower the batch size, then width and height.") from error


@contextmanager
def _text_encoders_aside(pipeline) -> Iterator[None]:
    """While open, the pipeline has no text encoders, to whose precision it would bring prompts and latents."""
    encoders = {part: getattr(pipeline, part) for part in TEXT_ENCODERS if hasattr(pipeline, part)}
    for part in encoders:
        setattr(pipeline, part, None)
    try:
        yield
    finally:
        for part, encoder in encoders.items():
            setattr(pipeline, part, encoder)


def conditions(people: People, prompt: str, negative: str = "") -> Inputs:
    """The pipeline's inputs for a prompt and a negative prompt, of equal length: each (1, …)."""
    positive_condition = people.encode(prompt)
    chunks = positive_condition.context.shape[1] // people.text.length
    negative_condition = people.encode(negative, chunks)
    if negative_condition.context.shape[1] > positive_condition.context.shape[1]:
        positive_condition = people.encode(prompt, negative_condition.context.shape[1] // people.text.length)
    return _named(positive_condition, "") | _named(negative_condition, "negative_")


def _named(condition: TextCondition, prefix: str) -> dict[str, torch.Tensor]:
    pooled = {} if condition.pooled is None else {f"{prefix}pooled_prompt_embeds": condition.pooled}
    return {f"{prefix}prompt_embeds": condition.context, **pooled}
