"""The base model draws people whom it knows by name, and their pictures are kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from ..diffusion.backbone import Backbone
from ..faces import FaceEngine
from ..faces.score import embed_images, only
from ..images import to_pixels
from ..text.captions import PLACEHOLDER
from .config import DatasetConfig
from .dataset import PeopleDataset, number_of


def draw_people(
    folder: PeopleDataset, backbone: Backbone, engine: FaceEngine, shard: tuple[int, int] = (0, 1)
) -> Iterator[tuple[int, Tensor | None]]:
    """Make the pictures that are not there yet, person after person.

    People are sampled together, always the same ones: the last digits of a picture depend on who they are.

    Args:
        shard: as in `blocks`.

    Yields:
        A person's number, and images (P, H, W, 3), or None if they were there.

    Raises:
        ConfigError: the folder holds pictures of another base model, or of other settings.
    """
    folder.write_manifest()
    drawing = None
    for block in blocks(folder.config, shard):
        missing = [number for number in block if folder.stored(number) is None]
        if missing:
            drawing = drawing or _Drawing(folder, backbone, engine)
            images = drawing.draw(block, missing)
        for number in block:
            yield number, images[number] if number in missing else None


def blocks(config: DatasetConfig, shard: tuple[int, int] = (0, 1)) -> list[range]:
    """Numbers of the people who are drawn together.

    Args:
        shard: (i, k): every k-th block from the i-th on, so that several machines share the work.
    """
    together, all_names = max(1, config.sampling_batch_size // config.images_per_person), range(len(config.all_names))
    return [all_names[begin : begin + together] for begin in all_names[::together]][shard[0] :: shard[1]]


class _Drawing:
    """What is needed to draw a folder's people."""

    def __init__(self, folder: PeopleDataset, backbone: Backbone, engine: FaceEngine):
        self._folder, self._config, self._engine = folder, folder.config, engine
        self._sampler = folder.image_sampler(backbone)

    def draw(self, block: Sequence[int], missing: Sequence[int]) -> dict[int, Tensor]:
        """Draw a block of people, and write those who are missing; images (P, H, W, 3) of each."""
        texts = [text for number in block for text in self._texts(number)]
        seeds = [self._config.seed + place for number in block for place in self._places(number)]
        latents, images = (part.split(self._config.images_per_person) for part in self._sampler.draw(texts, seeds))
        for number, own_latents, own_images in zip(block, latents, images):
            if number in missing:
                faces = embed_images(self._engine, to_pixels(own_images), only)
                self._folder.write(number, own_latents, faces, self._prompts(number))
        return dict(zip(block, images))

    def _texts(self, number: int) -> list[str]:
        name = self._config.all_names[number]
        return [prompt.replace(PLACEHOLDER, name) for prompt in self._prompts(number)]

    def _prompts(self, number: int) -> list[str]:
        return [self._config.prompts[place % len(self._config.prompts)] for place in self._places(number)]

    def _places(self, number: int) -> range:
        """Of a person's pictures among all prompts and seeds."""
        first = number_of(self._config.all_names[number])
        return range(first, first + self._config.images_per_person)
