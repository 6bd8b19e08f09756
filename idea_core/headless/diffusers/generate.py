"""Images of trained people, with diffusers' own pipelines and samplers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import diffusers
import torch
from PIL import Image

from ...errors import ConfigError
from ..config import SCHEDULERS, GenerateConfig
from .applied import People
from .flow.applied import FlowPeople
from .kinds import AnyPeople
from .text import TEXT_ENCODERS

Inputs = Mapping[str, torch.Tensor]
"""A pipeline's arguments for one prompt."""


def generate(
    pipeline: Any, people: AnyPeople, prompt: str, count: int, config: GenerateConfig = GenerateConfig()
) -> Iterator[tuple[int, Image.Image]]:
    """Seed and image, `count` times.

    An image depends on its seed, not on the others of its batch, up to the device's rounding.

    Raises:
        ConfigError: out of memory.
    """
    inputs = conditions(people, prompt, config.negative)
    seeds = range(config.seed, config.seed + count)
    for start in range(0, count, config.batch_size):
        batch = seeds[start : start + config.batch_size]
        yield from zip(batch, sample(pipeline, people, [inputs] * len(batch), batch, config))


def generate_each(
    pipeline: Any, people: AnyPeople, prompts: Sequence[str], config: GenerateConfig = GenerateConfig()
) -> Iterator[Image.Image]:
    """An image of each prompt; seeds count up. Prompts of one length share batches.

    Raises:
        ConfigError: out of memory.
    """
    inputs = [conditions(people, prompt, config.negative) for prompt in prompts]
    for begin, end in _batches([part["prompt_embeds"].shape[1] for part in inputs], config.batch_size):
        yield from sample(pipeline, people, inputs[begin:end], range(config.seed + begin, config.seed + end), config)


def _batches(lengths: Sequence[int], size: int) -> Iterator[tuple[int, int]]:
    """First and last index of batches of at most `size` neighbours of one length."""
    begin = 0
    for index in range(1, len(lengths) + 1):
        if index == len(lengths) or index - begin == size or lengths[index] != lengths[begin]:
            yield begin, index
            begin = index


def sample(
    pipeline: Any,
    people: AnyPeople,
    inputs: Sequence[Inputs],
    seeds: Sequence[int],
    config: GenerateConfig = GenerateConfig(),
) -> list[Image.Image]:
    """One batch of images, each with its own prompt and seed.

    Args:
        inputs: each image's `conditions`, all of one length.

    Raises:
        ConfigError: out of memory.
    """
    if isinstance(people, FlowPeople):
        own, drawing = _flow_arguments(people, inputs, config), people.drawing(inputs)
    else:
        own, drawing = _arguments(pipeline, inputs, config), _drawing(pipeline, people)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    try:
        with torch.no_grad(), drawing:
            return pipeline(**own, num_inference_steps=config.steps, generator=generators).images
    except torch.cuda.OutOfMemoryError as error:
        got = f"out of memory at a batch of {len(seeds)}"
        raise ConfigError("memory for the images", got, "Lower the batch size, then width and height.") from error


def _arguments(pipeline: Any, inputs: Sequence[Inputs], config: GenerateConfig) -> dict[str, Any]:
    """A Stable Diffusion pipeline's arguments; it gets the sampler of the settings."""
    pipeline.scheduler = getattr(diffusers, SCHEDULERS[config.scheduler]).from_config(pipeline.scheduler.config)
    joined = {key: torch.cat([part[key] for part in inputs]) for key in inputs[0]}
    joined = {key: part.to(pipeline.unet.device, pipeline.unet.dtype) for key, part in joined.items()}
    return {**joined, "guidance_scale": config.guidance, "width": config.width, "height": config.height}


def _flow_arguments(people: FlowPeople, inputs: Sequence[Inputs], config: GenerateConfig) -> dict[str, Any]:
    """A flow-matching pipeline's arguments; it keeps its own sampler."""
    side = people.base.resolution
    sizes = {"width": config.width or side, "height": config.height or side}
    return {**people.arguments(inputs, config.guidance), **sizes}


@contextmanager
def _drawing(pipeline: Any, people: People) -> Iterator[None]:
    """Inside, a Stable Diffusion pipeline draws with people."""
    with people.kv(), _text_encoders_aside(pipeline):
        yield


@contextmanager
def _text_encoders_aside(pipeline: Any) -> Iterator[None]:
    """Inside, the pipeline has no text encoders: it would convert prompts and latents to their precision."""
    encoders = {part: getattr(pipeline, part) for part in TEXT_ENCODERS if hasattr(pipeline, part)}
    for part in encoders:
        setattr(pipeline, part, None)
    try:
        yield
    finally:
        pipeline.register_modules(**encoders)  # set alone, they would not be saved with the pipeline


def conditions(people: AnyPeople, prompt: str, negative: str = "") -> Inputs:
    """The pipeline's inputs for a prompt and a negative prompt: each (1, …), of Stable Diffusion of equal length."""
    if isinstance(people, FlowPeople):
        return people.inputs(prompt, negative)
    wanted = people.encode(prompt)
    unwanted = people.encode(negative, wanted.context.shape[1] // people.text.length)
    if unwanted.context.shape[1] > wanted.context.shape[1]:
        wanted = people.encode(prompt, unwanted.context.shape[1] // people.text.length)
    inputs = {"prompt_embeds": wanted.context, "negative_prompt_embeds": unwanted.context}
    if wanted.pooled is not None and unwanted.pooled is not None:
        inputs |= {"pooled_prompt_embeds": wanted.pooled, "negative_pooled_prompt_embeds": unwanted.pooled}
    return inputs
