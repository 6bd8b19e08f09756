"""What the objectives of an `EnhancerModel` learn from: people's images, their names, and random choices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from ..diffusion.backbone import Backbone, Prompt, TextCondition, Vectors
from ..diffusion.memory import send
from ..errors import TrainingError
from ..text.tokenized import tokenize_captions
from .config import EnhancerTrainConfig
from .dataset import PeoplePictures
from .model import BLOCKS, HIDDEN, EnhancerModel, face_condition

_NAMES_KEPT = 4096  # embedded names on the device, of some kilobytes each


class TrainingData:
    """What all objectives share: the model in training, its images, and the source of all random choices."""

    def __init__(
        self,
        backbone: Backbone,
        model: EnhancerModel,
        pictures: PeoplePictures,
        config: EnhancerTrainConfig,
        generator: torch.Generator,
    ):
        self.backbone, self.model, self.pictures = backbone, model, pictures
        self.config, self.generator = config, generator
        self.names = [backbone.tokenize(name) for name in pictures.names]
        self._captions = tokenize_captions(backbone, pictures.prompts, model.num_tokens)
        self.embedded_name = lru_cache(_NAMES_KEPT)(self._embed_name)
        self._order, self._counts = pictures.people.argsort(stable=True), pictures.people.bincount()
        self._first = self._counts.cumsum(0) - self._counts
        self._place = self._order.argsort()  # of each image in `_order`

    def dropout(self, size: int) -> Tensor:
        """Random factors (size, BLOCKS, HIDDEN) for a batch."""
        kept = torch.rand(size, BLOCKS, HIDDEN, generator=self.generator) >= self.config.dropout
        return kept / (1 - self.config.dropout)

    def other_faces(self, chosen: Tensor) -> Tensor:
        """Mean face (B, 512) of other images of the people in images (B,)."""
        person = self.pictures.people[chosen]
        mine = self._place[chosen] - self._first[person]
        count = self._counts[person, None]
        drawn = torch.rand(len(chosen), self.config.views, generator=self.generator)
        others = (mine[:, None] + 1 + (drawn * (count - 1)).long()) % count  # never the image itself
        faces = self.pictures.faces[self._order[self._first[person, None] + others]]  # (B, views, 512)
        views = torch.randint(1, self.config.views + 1, (len(chosen), 1), generator=self.generator)
        used = torch.arange(self.config.views) < views
        return functional.normalize((faces * used[..., None]).sum(1), dim=-1)

    def mean_faces(self) -> Tensor:
        """Mean face (N, 512) of all images of each person."""
        faces, people = self.pictures.faces, self.pictures.people
        totals = torch.zeros(len(self._counts), faces.shape[1]).index_add_(0, people, faces.float())
        return functional.normalize(totals, dim=1)

    def condition(self, chosen: Tensor, faces: Tensor, dropout: Tensor | None) -> TextCondition:
        """Text condition of the captions of images (B,), with the people of faces (B, 512)."""
        device = self.backbone.device
        factors = None if dropout is None else send(dropout, device)
        return face_condition(self.backbone, self.model, self._captions_of(chosen), send(faces, device), factors)

    @torch.no_grad()
    def named_condition(self, chosen: Tensor) -> TextCondition:
        """Text condition of the captions of images (B,), with the names of the people in them."""
        names = [self.embedded_name(person) for person in self.pictures.people[chosen].tolist()]
        vectors = {encoder: [name[encoder] for name in names] for encoder in names[0]}
        return self.backbone.encode(self._captions_of(chosen), vectors)

    def nameable(self, exactly: bool) -> Tensor:
        """Indices (N,) of images of people whose names have as many tokens as a person, or more.

        Raises:
            TrainingError: there are none.
        """
        wanted = self.model.num_tokens
        fitting = torch.tensor(
            [all(len(ids) == wanted if exactly else len(ids) >= wanted for ids in name.values()) for name in self.names]
        )
        found = fitting[self.pictures.people].nonzero()[:, 0]
        if not len(found):
            raise TrainingError(
                f"people whose names are of {wanted} tokens, to learn by text",
                "none",
                "Give such names, as most first and last names are" + (", or set text_steps to 0." if exactly else "."),
            )
        return found

    def encode_caption(self, index: int, vectors: Vectors) -> TextCondition:
        """Text condition of an image's caption with a person's vectors."""
        return self.backbone.encode([self._captions[index]], vectors)

    def _embed_name(self, person: int) -> dict[str, Tensor]:
        """Text encoder → input embeddings (n, d_enc) of a person's name; the device waits for each."""
        return {encoder: self.backbone.embed_tokens(encoder, ids) for encoder, ids in self.names[person].items()}

    def _captions_of(self, chosen: Tensor) -> Sequence[Prompt]:
        return [self._captions[index] for index in chosen.tolist()]


@dataclass(frozen=True, eq=False)
class PeopleBatch:
    """The random choices of a step, one row for each image; drawn on the CPU."""

    pictures: Tensor  # (B,) indices of images
    faces: Tensor  # (B, 512), the model's input for the people in them
    dropout: Tensor  # (B, BLOCKS, HIDDEN) factors
    levels: Tensor | None = None  # (B,), noise levels
    noise: Tensor | None = None  # (B, c, h, w), added to the images' latents
    drawn_faces: Tensor | None = None  # (B, 512), the model's input for the people who are drawn
    drawn_noise: Tensor | None = None  # (B, c, h, w) that they are drawn from

    def __len__(self) -> int:
        return len(self.pictures)

    def parts(self, size: int) -> Iterator[PeopleBatch]:
        """The same batch in pieces of at most `size`."""
        tensors = {field.name: tensor for field in fields(self) if (tensor := getattr(self, field.name)) is not None}
        for pieces in zip(*(tensor.split(size) for tensor in tensors.values())):
            yield PeopleBatch(**dict(zip(tensors, pieces)))
