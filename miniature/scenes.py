"""What surrounds a face in an image, and the words for it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BACKGROUNDS = ("red", "green", "blue", "yellow", "purple", "gray", "white", "orange")
HATS = ("none", "red", "blue", "green")
EXPRESSIONS = ("neutral", "smiling", "frowning")
STYLES = ("photo", "sketch", "painting")
WEARS_HAT, LOOKS, IS_PHOTO = 0.5, (0.4, 0.3, 0.3), 0.7  # shares of pictures


@dataclass(frozen=True, eq=False)
class Scenes:
    """Contexts of B images: indices into the tuples above, and nuisances that captions do not mention.

    Attributes:
        background, hat, expression, style: (B,) indices.
        shift: (B, 2) of the face, in half image sides.
        scale, turn, light: (B,) size, rotation in radians, brightness.
        side_light: (B,) difference of brightness from left to right.
        noise: (B,) standard deviation of the sensor's noise, in 0…1.
    """

    background: Tensor
    hat: Tensor
    expression: Tensor
    style: Tensor
    shift: Tensor
    scale: Tensor
    turn: Tensor
    light: Tensor
    side_light: Tensor
    noise: Tensor

    def __len__(self) -> int:
        return len(self.background)

    def __getitem__(self, index) -> Scenes:
        return Scenes(*(getattr(self, field)[index] for field in self.__dataclass_fields__))

    def caption(self, number: int, person: str, background: bool = True) -> str:
        """ "a photo of Bala Bastman, smiling, wearing a red hat, on a blue background"."""
        words = [f"a {STYLES[int(self.style[number])]} of {person}"]
        if expression := int(self.expression[number]):
            words.append(EXPRESSIONS[expression])
        if hat := int(self.hat[number]):
            words.append(f"wearing a {HATS[hat]} hat")
        if background:
            words.append(f"on a {BACKGROUNDS[int(self.background[number])]} background")
        return ", ".join(words)


def draw_scenes(count: int, generator: torch.Generator) -> Scenes:
    """Random contexts."""

    def uniform(*size: int) -> Tensor:
        return torch.rand(*size, generator=generator) * 2 - 1

    def choose(weights) -> Tensor:
        return torch.multinomial(torch.tensor(weights), count, replacement=True, generator=generator)

    bare = (1 - WEARS_HAT, *[WEARS_HAT / (len(HATS) - 1)] * (len(HATS) - 1))
    return Scenes(
        background=choose([1.0] * len(BACKGROUNDS)),
        hat=choose(bare),
        expression=choose(LOOKS),
        style=choose((IS_PHOTO, (1 - IS_PHOTO) / 2, (1 - IS_PHOTO) / 2)),
        shift=uniform(count, 2) * 0.08,
        scale=1 + uniform(count) * 0.08,
        turn=uniform(count) * 0.12,
        light=1 + uniform(count) * 0.1,
        side_light=uniform(count) * 0.15,
        noise=torch.rand(count, generator=generator) * 0.02,
    )


def plain_scenes(count: int, background: int = 5, hat: int = 0, expression: int = 0, style: int = 0) -> Scenes:
    """The same context for all, without nuisances."""

    def full(value: int) -> Tensor:
        return torch.full((count,), value)

    zeros, ones = torch.zeros(count), torch.ones(count)
    return Scenes(
        full(background),
        full(hat),
        full(expression),
        full(style),
        torch.zeros(count, 2),
        ones,
        zeros,
        ones,
        zeros,
        zeros,
    )
