"""How well an Enhancer that has seen people does with those held out."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.nn.functional import normalize

from ..diffusion.backbone import Backbone
from ..faces import FaceEngine
from ..text.tokenized import tokenize_captions
from .dataset import PeopleDataset
from .drawing import faces_of
from .model import EnhancerModel, face_condition


class Validator:
    """People held out, and how alike the pictures are that are drawn of them from their faces alone.

    Likeness is the mean cosine to faces of the person that the Enhancer was not given.

    Args:
        each: pictures of a person.
        most: people, the first ones; None: all.

    Raises:
        TrainingError: nobody is held out whose pictures are of use.
    """

    def __init__(
        self, folder: PeopleDataset, backbone: Backbone, engine: FaceEngine, each: int = 4, most: int | None = None
    ):
        self._pictures = folder.pictures("val")
        self.names = self._pictures.names
        self._sampler = folder.image_sampler(backbone)
        self._backbone, self._engine, self._most = backbone, engine, most
        prompts = folder.config.prompts
        self._captions = tokenize_captions(backbone, [prompts[index % len(prompts)] for index in range(each)])

    def measure(self, model: EnhancerModel) -> Iterator[dict[str, str | float]]:
        """For each person: likeness of pictures from a face alone, and of the base model's own by name."""
        each = len(self._captions)
        for number, name in list(enumerate(self.names))[: self._most]:
            faces = self._pictures.faces[self._pictures.people == number]
            given, others = faces[::2], faces[1::2]
            face = normalize(given.mean(0), dim=0).expand(each, -1).to(self._backbone.device)
            with torch.no_grad():
                condition = face_condition(self._backbone, model, self._captions, face)
            found = faces_of(self._engine, self._sampler.draw_conditions(condition, range(each))[1])
            yield {
                "name": name,
                "likeness": float((found @ others.T).mean()),
                "by_name": float((given @ others.T).mean()),
                "detected": float((found.norm(dim=1) > 0).float().mean()),
            }
