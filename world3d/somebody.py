"""A person of the demo: photos, other true images and prompts in a folder, as `idea compare` reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from idea_core.faces.score import similarities
from idea_core.headless.jobs.people import Person
from idea_core.headless.jobs.photo_source import PhotoSource, Prepared
from miniature.images import to_signed

from .obedience import judge, right
from .scenes import ASKED, SIZE, asked_for
from .world import World, read

PEOPLE = Path(__file__).parent / "data" / "people"
TRUE = "true"  # folder of true images of what the prompts ask for
PER_PROMPT = 2
MEASURES = ("identity", "second", "obedience")


@dataclass(frozen=True, eq=False)
class Somebody:
    """A person whom no model has seen.

    Attributes:
        count: number of photos to train on.
        per_prompt: number of images of each prompt.
    """

    folder: Path
    count: int
    per_prompt: int = PER_PROMPT

    @cached_property
    def person(self) -> Person:
        return Person.of(self.folder)

    @property
    def photos(self) -> tuple[Path, ...]:
        return self.person.photos[: self.count]

    def prepared(self, world: World) -> Prepared:
        """The photos, read from files as a user's are."""
        return PhotoSource(self.photos, crop="center", resolution=SIZE).prepare(world.faces)

    def prompts(self, name: str) -> list[str]:
        """What images are drawn of: each prompt `per_prompt` times."""
        return [prompt.format(name) for prompt in self.person.prompts for _ in range(self.per_prompt)]

    def true_images(self) -> list[np.ndarray]:
        """True images of what `prompts` asks for."""
        return list(map(read, sorted((self.folder / TRUE).iterdir())))

    def measure(self, images: Sequence[np.ndarray], world: World) -> dict[str, float]:
        """Means over the images of `prompts`.

        Returns:
            identity, second: mean similarity to the person's other true images, by either recogniser; no face counts
                as 0.
            obedience: share of what the prompts ask for that the images show.
            each key of `ASKED`: the same of one thing that is asked for.
        """
        first, second, _ = world.embed(images)
        mine, again = self._references(world)
        answers = {key: share.mean().item() for key, share in self._obeyed(images).items()}
        return {
            "identity": similarities(first, mine).mean().item(),
            "second": similarities(second, again).mean().item(),
            **answers,
            "obedience": sum(answers.values()) / len(ASKED),
        }

    def _references(self, world: World) -> tuple[Tensor, Tensor]:
        first, second, _ = world.embed(list(map(read, self.person.references)))
        return first, second

    def _obeyed(self, images: Sequence[np.ndarray]) -> dict[str, Tensor]:
        wanted = torch.tensor([asked_for(prompt) for prompt in self.prompts("{}")])
        return right(judge(), to_signed(images), wanted)


def everybody(count: int, source: Path = PEOPLE) -> list[Somebody]:
    """The people who come with ID-EA, with `count` photos each."""
    return [Somebody(folder, count) for folder in sorted(path for path in source.iterdir() if path.is_dir())]
