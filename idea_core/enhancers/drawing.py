"""The base model draws: images of prompts, and the images of a data set."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ..diffusion.backbone import Backbone, Prompt, TextCondition
from ..diffusion.memory import Memory, empty_cache, is_out_of_memory, memory_of, more_at_once, out_of_memory_as
from ..diffusion.sampling import empty_prompt, sample
from ..errors import TrainingError
from ..faces import FaceEngine
from ..faces.score import embed_images, only
from ..families import BASE_MODELS
from ..images import to_pixels
from ..text.captions import PLACEHOLDER
from ..text.tokenized import quoted, require_short
from .config import DatasetConfig, RefineConfig
from .dataset import PeopleDataset, number_of
from .model import EnhancerModel, face_condition

logger = logging.getLogger(__name__)

BLANK = 64  # side in pixels of a blank image, which is encoded to learn the shape of latents
MOST = 12  # images together; more give no speed
HOPELESS = 20  # people without a usable one, after which the others are not drawn
OnDrawn = Callable[[int], None]
"""Called with the number of images that are sampled but not decoded; it may raise to cancel."""


class ImageSampler:
    """Draws images with a base model.

    Where a device has much free memory, more images are sampled together after the first ones, and fewer where memory
    runs out. That changes them only by rounding.

    Args:
        memory: of the backbone's device; None: as `memory_of` says.
    """

    def __init__(self, backbone: Backbone, config: DatasetConfig | RefineConfig, memory: Memory | None = None):
        self._backbone, self._config, self._batch_size = backbone, config, config.sampling_batch_size
        self._memory = memory or memory_of(backbone.device)
        channels, side, _ = backbone.encode_images(torch.zeros(1, BLANK, BLANK, 3)).mean.shape[1:]
        self._shape = (channels, side * config.resolution // BLANK, side * config.resolution // BLANK)
        self._negative = empty_prompt(backbone)

    @torch.no_grad()
    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Latents (B, c, h, w) in half precision and images (B, H, W, 3) of prompts, one seed each.

        Raises:
            TrainingError: not enough memory for a single image.
        """
        read = [self._backbone.read(prompt) for prompt in prompts]
        for prompt, one in zip(prompts, read):
            require_short(self._backbone, one.length, quoted(prompt))
        return self._draw_batches(lambda part: self._backbone.encode([read[number] for number in part]), seeds)

    @torch.no_grad()
    def draw_faces(
        self,
        model: EnhancerModel,
        captions: Sequence[Prompt],
        faces: Tensor,
        seeds: Sequence[int],
        on_drawn: OnDrawn | None = None,
    ) -> Tensor:
        """Images (B, H, W, 3) of captions with the people of faces (B, 512), as an Enhancer gives them."""

        def encode(part: list[int]) -> TextCondition:
            return face_condition(self._backbone, model, [captions[number] for number in part], faces[part])

        return self._draw_batches(encode, seeds, on_drawn)[1]

    def _draw_batches(
        self,
        encode: Callable[[list[int]], TextCondition],
        seeds: Sequence[int],
        on_drawn: OnDrawn | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Latents and images of prompts, which `encode` encodes by their numbers; those of one length together."""
        drawn: list[tuple[Tensor, Tensor]] = []
        order: list[int] = []
        for part, conditions in self._conditions(encode, len(seeds)):
            told = on_drawn and partial(_add, on_drawn, len(order))
            drawn.append(self._draw_conditions(conditions, [seeds[number] for number in part], told))
            order += part
        place = torch.tensor(order).argsort()
        latents, images = (torch.cat(parts)[place] for parts in zip(*drawn))
        return latents, images

    def _conditions(
        self, encode: Callable[[list[int]], TextCondition], count: int
    ) -> list[tuple[list[int], TextCondition]]:
        """Numbers of prompts and their conditions: all together, or those of one length."""
        transformer = BASE_MODELS[self._backbone.base_model].transformer
        if transformer is None or not transformer.ragged:
            return [(list(range(count)), encode(list(range(count))))]
        alone = [encode([number]) for number in range(count)]
        lengths = [condition.context.shape[1] for condition in alone]
        groups = [[number for number in range(count) if lengths[number] == one] for one in dict.fromkeys(lengths)]
        return [(group, TextCondition.together([alone[number] for number in group])) for group in groups]

    def _draw_conditions(
        self, conditions: TextCondition, seeds: Sequence[int], on_drawn: OnDrawn | None = None
    ) -> tuple[Tensor, Tensor]:
        """`draw` for prompts that were encoded together."""
        noise = torch.stack([torch.randn(self._shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
        latents, begin, got = [], 0, f"out of memory at {self._config.resolution} pixels"
        with out_of_memory_as(TrainingError("memory for an image", got, "Lower the resolution.")):
            while begin < len(noise):
                part = slice(begin, begin + self._batch_size)
                drawn = self._sample(conditions.rows(part), noise[part])
                if drawn is None:
                    continue
                latents.append(drawn)
                begin += len(drawn)
                if on_drawn:
                    on_drawn(begin)
            drawn = torch.cat(latents)
            images = [self._backbone.decode_images(part) for part in drawn.split(self._batch_size)]
            return drawn.half().cpu(), torch.cat(images)

    def _sample(self, positive: TextCondition, noise: Tensor) -> Tensor | None:
        """Latents; None if memory ran out, after halving the batch size."""
        steps, guidance, order = self._config.sampling_steps, self._config.guidance, self._config.order
        compute = partial(sample, self._backbone, positive, self._negative, noise, steps, guidance, order)
        try:
            if self._memory is None or len(noise) < self._batch_size:
                return compute()
            drawn, used = self._memory.used_by(compute)
            self._batch_size = more_at_once(self._batch_size, used, self._memory.free(), MOST)
            return drawn
        except RuntimeError as error:
            if not is_out_of_memory(error) or self._batch_size == 1:
                raise
        self._batch_size, self._memory = (self._batch_size + 1) // 2, None  # it must not grow again
        logger.warning("ID-EA: out of memory; continuing with %d images at a time.", self._batch_size)
        empty_cache()
        return None


def _add(on_drawn: OnDrawn, before: int, count: int) -> None:
    on_drawn(before + count)


@dataclass
class UsablePeople:
    """How many of the people drawn so far have enough images that agree.

    Attributes:
        drawn, count: people so far, and usable ones among them.
    """

    dataset: PeopleDataset
    drawn: int = 0
    count: int = 0

    def add(self, number: int) -> None:
        """Count a person whose images are there.

        Raises:
            TrainingError: nobody of the first `HOPELESS` people is usable: more images would cost hours for nothing.
        """
        self.drawn += 1
        self.count += self.dataset.is_usable(number)
        if self.drawn >= HOPELESS and not self.count:
            raise self.dataset.nobody(f"none among the first {self.drawn}")


def draw_people(
    dataset: PeopleDataset, backbone: Backbone, engine: FaceEngine, shard: tuple[int, int] = (0, 1)
) -> Iterator[tuple[int, Tensor | None]]:
    """Draw the images that are missing, person after person.

    People are always sampled in the same blocks, since the last digits of an image depend on the others.

    Args:
        shard: as in `blocks`.

    Yields:
        A person's number, and their images (P, H, W, 3), or None if they were there already.
    """
    dataset.write_manifest()
    sampler = None
    alone = shard == (0, 1)  # machines that share the work agree on blocks by the settings
    for block in blocks(dataset.config, shard, MOST if alone and backbone.device.type == "cuda" else 0):
        missing = [number for number in block if dataset.stored(number) is None]
        if missing:
            sampler = sampler or ImageSampler(backbone, dataset.config)
            images = _draw_block(dataset, sampler, engine, block, missing)
        for number in block:
            yield number, images[number] if number in missing else None


def blocks(config: DatasetConfig, shard: tuple[int, int] = (0, 1), at_once: int = 0) -> list[range]:
    """Numbers of the people who are drawn together.

    Args:
        shard: (i, k): every k-th block from the i-th on, so that several machines share the work.
        at_once: images, where that is more than the settings say.
    """
    images, people = max(config.sampling_batch_size, at_once), range(len(config.all_names))
    size = max(1, images // config.images_per_person)
    return [people[begin : begin + size] for begin in people[::size]][shard[0] :: shard[1]]


def _draw_block(
    dataset: PeopleDataset, sampler: ImageSampler, engine: FaceEngine, block: range, missing: Sequence[int]
) -> dict[int, Tensor]:
    """Draw a block of people, and write those who are missing; images (P, H, W, 3) of each."""
    config = dataset.config
    prompts: dict[int, list[str]] = {}
    texts: list[str] = []
    seeds: list[int] = []
    for number in block:
        name = config.all_names[number]
        places = range(number_of(name), number_of(name) + config.images_per_person)  # among all prompts and seeds
        prompts[number] = [config.prompts[place % len(config.prompts)] for place in places]
        texts += [prompt.replace(PLACEHOLDER, name) for prompt in prompts[number]]
        seeds += [config.seed + place for place in places]
    latents, images = (part.split(config.images_per_person) for part in sampler.draw(texts, seeds))
    for number, own_latents, own_images in zip(block, latents, images):
        if number in missing:
            faces = embed_images(engine, list(to_pixels(own_images)), only)
            dataset.write(number, own_latents, faces, prompts[number])
    return dict(zip(block, images))
