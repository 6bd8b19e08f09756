"""What a `EnhancerModel` learns across people, and from what: text, pictures, and the likeness of what is drawn.

By text: from a face in one of the pictures comes the text condition that the name gives. It needs no UNet, and carries
most of the way. By pictures: from that face the frozen model has to denoise another picture of the same person as it
does from the name. By likeness: the base model draws whom a face shows, and the recogniser says how like the drawn face
is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn import functional

from ..diffusion.backbone import Backbone, TextCondition
from ..diffusion.memory import send
from ..errors import TrainingError
from ..text.tokenized import Caption, fill, tokenize_captions
from ..training.likeness_loss import LikenessLoss
from .config import EnhancerTrainConfig
from .model import BLOCKS, HIDDEN, EnhancerModel, face_condition
from .pictures import PeoplePictures


class TrainingData:
    """What all objectives share: who learns, from which pictures, and random choices.

    Args:
        model: that learns.
        generator: of all random choices.
    """

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
        self._order, self._counts = pictures.people.argsort(stable=True), pictures.people.bincount()
        self._first = self._counts.cumsum(0) - self._counts
        self._place = self._order.argsort()  # of each picture among all, by person

    def dropout(self, size: int) -> Tensor:
        """Factors (size, BLOCKS, HIDDEN) of a batch."""
        kept = torch.rand(size, BLOCKS, HIDDEN, generator=self.generator) >= self.config.dropout
        return kept / (1 - self.config.dropout)

    def other_faces(self, chosen: Tensor) -> Tensor:
        """The mean face (B, 512) of some other pictures of the same people as in pictures (B,)."""
        person = self.pictures.people[chosen]
        mine = self._place[chosen] - self._first[person]
        count = self._counts[person, None]
        drawn = torch.rand(len(chosen), self.config.views, generator=self.generator)
        others = (mine[:, None] + 1 + (drawn * (count - 1)).long()) % count  # never the picture itself
        faces = self.pictures.faces[self._order[self._first[person, None] + others]]  # (B, views, 512)
        views = torch.randint(1, self.config.views + 1, (len(chosen), 1), generator=self.generator)
        used = torch.arange(self.config.views) < views
        return functional.normalize((faces * used[..., None]).sum(1), dim=-1)

    def mean_faces(self) -> Tensor:
        """The face (N, 512) of each person in all pictures of theirs."""
        faces, people = self.pictures.faces, self.pictures.people
        totals = torch.zeros(len(self._counts), faces.shape[1]).index_add_(0, people, faces.float())
        return functional.normalize(totals, dim=1)

    def condition(self, chosen: Tensor, faces: Tensor, dropout: Tensor | None) -> TextCondition:
        """What captions about pictures (B,) give with the people whom faces (B, 512) show."""
        device = self.backbone.device
        factors = None if dropout is None else send(dropout, device)
        return face_condition(self.backbone, self.model, self._said(chosen), send(faces, device), factors)

    @torch.no_grad()
    def named_condition(self, chosen: Tensor) -> TextCondition:
        """What captions about pictures (B,) give with the names of the people in them."""
        names = [self.names[person] for person in self.pictures.people[chosen].tolist()]
        return self.backbone.encode(fill(self._said(chosen), {key: [name[key] for name in names] for key in names[0]}))

    def _said(self, chosen: Tensor) -> Sequence[Caption]:
        return [self._captions[index] for index in chosen.tolist()]


@dataclass(frozen=True, eq=False)
class PeopleBatch:
    """The random choices of a step, one row for each picture; drawn on the CPU.

    Attributes:
        pictures: (B,), of which captions and people count.
        faces: (B, 512), what the model is given of those people.
        dropout: (B, BLOCKS, HIDDEN), factors.
        timesteps: (B,); None by text alone.
        noise: (B, c, h, w) in the pictures' latents; None by text alone.
        drawn_faces: (B, 512) of people who are drawn; None where nobody is.
        drawn_noise: (B, c, h, w) that they are drawn from.
    """

    pictures: Tensor
    faces: Tensor
    dropout: Tensor
    timesteps: Tensor | None = None
    noise: Tensor | None = None
    drawn_faces: Tensor | None = None
    drawn_noise: Tensor | None = None

    def __len__(self) -> int:
        return len(self.pictures)

    def parts(self, size: int) -> Iterator[PeopleBatch]:
        """The same batch in pieces of at most `size`."""
        given = {field.name: tensor for field in fields(self) if (tensor := getattr(self, field.name)) is not None}
        for pieces in zip(*(tensor.split(size) for tensor in given.values())):
            yield PeopleBatch(**dict(zip(given, pieces)))


class Objective(ABC):
    """So many steps of one kind.

    Args:
        steps: of the optimiser.
        lr: learning rate.
    """

    lr_setting: str
    """Name of the setting that the rate comes from."""

    def __init__(self, steps: int, lr: float, data: TrainingData):
        self.steps, self._lr, self._data = steps, lr, data

    @abstractmethod
    def draw(self) -> PeopleBatch:
        """Sample a batch."""

    @abstractmethod
    def loss(self, batch: PeopleBatch) -> Tensor:
        """The mean loss, a scalar, of a batch as drawn, or of a part of it."""

    def lr_after(self, done: int) -> float:
        """Learning rate of the step after `done` ones: a warm-up over a fiftieth of all, a fall over the last half."""
        warm_up, fall = (done + 1) / max(1, self.steps // 50), 2 * (1 - done / self.steps)
        return self._lr * min(1.0, warm_up) * (min(1.0, fall) * 0.95 + 0.05)


class TextObjective(Objective):
    """From faces to the text conditions that the people's names give.

    Raises:
        TrainingError: nobody's name takes as many tokens as a person does.
    """

    lr_setting = "text_lr"

    def __init__(self, steps: int, lr: float, data: TrainingData):
        super().__init__(steps, lr, data)
        wanted = data.model.num_tokens
        fitting = torch.tensor([{len(ids) for ids in name.values()} == {wanted} for name in data.names])
        self._nameable = fitting[data.pictures.people].nonzero()[:, 0]
        if not len(self._nameable):
            raise TrainingError(
                f"people whose names are of {wanted} tokens, to learn by text",
                "none",
                "Give such names, as most first and last names are, or set text_steps to 0.",
            )

    def draw(self) -> PeopleBatch:
        data, size = self._data, self._data.config.text_batch_size
        chosen = self._nameable[torch.randint(len(self._nameable), (size,), generator=data.generator)]
        return PeopleBatch(chosen, data.other_faces(chosen), data.dropout(size))

    def loss(self, batch: PeopleBatch) -> Tensor:
        wanted = self._data.named_condition(batch.pictures)
        parts = zip(self._data.condition(batch.pictures, batch.faces, batch.dropout), wanted)
        errors = [(part.float() - want.float()).square().mean() for part, want in parts if part is not None]
        return torch.stack(errors).sum()


class DenoisingObjective(Objective):
    """From faces to what the base model predicts, in pictures of the people, for their names."""

    lr_setting = "lr"

    def __init__(self, steps: int, lr: float, data: TrainingData):
        super().__init__(steps, lr, data)
        self._weights = data.backbone.schedule.min_snr(data.config.snr_gamma, data.config.snr_scale)

    def draw(self) -> PeopleBatch:
        data, size = self._data, self._data.config.batch_size
        latents, generator = data.pictures.latents, data.generator
        chosen = torch.randint(len(latents), (size,), generator=generator)
        timesteps = torch.randint(data.backbone.schedule.num_timesteps, (size,), generator=generator)
        noise = torch.randn(size, *latents.shape[1:], generator=generator)
        return PeopleBatch(chosen, data.other_faces(chosen), data.dropout(size), timesteps, noise)

    def loss(self, batch: PeopleBatch) -> Tensor:
        assert batch.timesteps is not None and batch.noise is not None
        backbone, device = self._data.backbone, self._data.backbone.device
        condition = self._data.condition(batch.pictures, batch.faces, batch.dropout)
        latents = self._data.pictures.latents[batch.pictures].to(device, torch.float32)
        steps = send(batch.timesteps, device)
        noised = backbone.schedule.add_noise(latents, send(batch.noise, device), steps)
        with torch.no_grad():
            by_name = backbone.predict(noised, steps, self._data.named_condition(batch.pictures))
        error = (backbone.predict(noised, steps, condition) - by_name).square().mean((1, 2, 3))
        return (error * self._weights[batch.timesteps].to(device)).mean()


class LikenessObjective(DenoisingObjective):
    """The objective by pictures, and besides from faces to drawn ones that the recogniser takes for them."""

    lr_setting = "likeness_lr"

    def __init__(self, steps: int, lr: float, data: TrainingData, likeness: LikenessLoss):
        super().__init__(steps, lr, data)
        self._likeness, self._people = likeness, data.mean_faces()

    def draw(self) -> PeopleBatch:
        batch = super().draw()
        assert batch.noise is not None
        noise = torch.randn(batch.noise.shape, generator=self._data.generator)
        return replace(batch, drawn_faces=self._data.other_faces(batch.pictures), drawn_noise=noise)

    def loss(self, batch: PeopleBatch) -> Tensor:
        assert batch.drawn_faces is not None and batch.drawn_noise is not None
        device = self._data.backbone.device
        wanted = self._people[self._data.pictures.people[batch.pictures]]
        condition = self._data.condition(batch.pictures, batch.drawn_faces, None)  # as users will have it, no dropout
        unlike = self._likeness(condition, send(batch.drawn_noise, device), send(wanted, device))
        return super().loss(batch) + self._data.config.likeness_weight * unlike
