"""How well an Enhancer trained across people does with those held out."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.nn.functional import normalize

from ..diffusion.backbone import Backbone
from ..faces import FaceEngine
from ..faces.score import embed_images, only, similarities
from ..images import to_pixels
from ..text.tokenized import tokenize_captions
from .dataset import PeopleDataset
from .model import EnhancerModel, face_condition


class Validator:
    """People held out, and how like them the images are that are drawn from their faces alone.

    Figures are mean similarities to the reference images: the person's images that the Enhancer was not given. An image
    without exactly one face counts as 0.

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
        """For each person: mean similarity of images from a face alone, and of the base model's own by name."""
        each = len(self._captions)
        for number, name in list(enumerate(self.names))[: self._most]:
            faces = self._pictures.faces[self._pictures.people == number]
            given, others = faces[::2], faces[1::2]
            face = normalize(given.mean(0), dim=0).expand(each, -1).to(self._backbone.device)
            with torch.no_grad():
                condition = face_condition(self._backbone, model, self._captions, face)
            images = self._sampler.draw_conditions(condition, range(each))[1]
            drawn = embed_images(self._engine, to_pixels(images), only)
            yield {
                "name": name,
                "mean_similarity": float(similarities(drawn, others).mean()),
                "by_name": float(similarities(given, others).mean()),
                "detected": float((drawn.norm(dim=1) > 0).float().mean()),
            }
