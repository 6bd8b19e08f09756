"""Pictures of several people, to learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..errors import TrainingError, require_shape
from ..text.captions import PLACEHOLDER


@dataclass(frozen=True, eq=False)
class PeoplePictures:
    """Pictures of several people.

    Attributes:
        latents: (N, c, h, w), scaled as the UNet wants them.
        faces: (N, 512), L2-normalised embeddings of the faces in them.
        people: (N,) whom they show; each person at least twice.
        prompts: of each picture, with `{}` for the person.
        names: of the people.
    """

    latents: Tensor
    faces: Tensor
    people: Tensor
    prompts: Sequence[str]
    names: Sequence[str]

    def __post_init__(self):
        count = len(self.latents)
        require_shape("faces", self.faces, count, 512)
        require_shape("people", self.people, count)
        if len(self.prompts) != count or not all(PLACEHOLDER in prompt for prompt in self.prompts):
            raise TrainingError(f"{count} prompts with {PLACEHOLDER} in them", f"{len(self.prompts)}", "Write them so.")
        lonely = (self.people.bincount()[self.people] < 2).nonzero()
        if len(lonely) or not count:
            got = f"one of person {int(self.people[lonely[0]])}" if count else "no picture"
            raise TrainingError("two pictures of each person or more", got, "Make more pictures.")
