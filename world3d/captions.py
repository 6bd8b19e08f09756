"""Captions of the world's pictures; some say less than there is to see."""

from __future__ import annotations

import random

from idea_core.text.captions import OBJECT_TEMPLATES

from .album import person_of
from .people import named_people
from .scenes import Scene

CAPTIONS = 4  # of each picture
NULL, NAMELESS, TEMPLATE, NO_BACKGROUND, NO_SCENE = 0.1, 0.05, 0.25, 0.12, 0.3  # shares of captions


def captions_of(number: int, scene: Scene) -> list[str]:
    """The captions of picture `number`: always the same."""
    choices, known = random.Random(number), named_people()[person_of(number)]
    nameless = ("a person", "a face", "a man" if known.person.sex > 0.5 else "a woman")
    return [_caption(scene, known.name, nameless, choices) for _ in range(CAPTIONS)]


def _caption(scene: Scene, name: str, nameless: tuple[str, ...], choices: random.Random) -> str:
    if choices.random() < NULL:
        return ""
    if choices.random() < NAMELESS:
        name = choices.choice(nameless)
    said = scene.caption(name, background=choices.random() > NO_BACKGROUND)
    if choices.random() > TEMPLATE:
        return said
    start = choices.choice(OBJECT_TEMPLATES).format(f"face of {name} person")
    return start if choices.random() < NO_SCENE else start + said.removeprefix(f"a photo of {name}")
