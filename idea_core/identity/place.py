"""Where a file is written, so that it never replaces another person's or another checkpoint's."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from ..errors import IdeaError
from ..text.names import alike
from .base_ref import MadeForBase
from .identity import Identity

SAME_FACE = 0.5  # cosine of mean embeddings; those of a person are nearer than single photos' (`SAME_PERSON`)
Made = TypeVar("Made", bound=MadeForBase)


def same_person(one: Identity, other: Identity) -> bool:
    """Whether two identities are one person's on one family of base models: same name, and faces that agree.

    Faces agree from a cosine of `SAME_FACE` on: a number costs less than a lost file. Without a face in both, the name
    alone counts.
    """
    if alike(one.name) != alike(other.name) or one.base_model != other.base_model:
        return False
    if one.id_embeds is None or other.id_embeds is None:
        return True
    return bool(torch.cosine_similarity(one.id_embeds.float(), other.id_embeds.float(), dim=0) >= SAME_FACE)


def free_place(path: Path, made: Made, load: Callable[[Path], Made], same: Callable[[Made, Made], bool]) -> Path:
    """`path`, or the first of "name_2", "name_3" … beside it that is free or holds the `same` as `made`.

    A file that `load` cannot read is another's, and stays.
    """
    numbered = (path.with_name(f"{path.stem}_{number}{path.suffix}") for number in itertools.count(2))
    return next(place for place in itertools.chain([path], numbered) if _may_write(place, made, load, same))


def _may_write(path: Path, made: Made, load: Callable[[Path], Made], same: Callable[[Made, Made], bool]) -> bool:
    if not path.exists():
        return True
    try:
        return same(load(path), made)
    except (IdeaError, OSError):
        return False
