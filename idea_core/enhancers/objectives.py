"""What a `EnhancerModel` learns across people, and from what: text, pictures, and the likeness of what is drawn.

By text: from a face in one of the pictures comes the text condition that the name gives. It needs no UNet, and carries
most of the way. By pictures: from that face the frozen model has to denoise another picture of the same person as it
does from the name. By likeness: the base model draws whom a face shows, and the recogniser says how like the drawn face
is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ..diffusion.backbone import Backbone, TextCondition
from ..diffusion.transfer import send
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
    def draw(self) -> tuple[Tensor, ...]:
        """The random choices of a step: pictures (B,), and what else is chosen for each of them."""

    @abstractmethod
    def loss(self, *batch: Tensor) -> Tensor:
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

    def draw(self) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures (B,), of which captions and people count, faces (B, 512), and dropout."""
        given, size = self._data, self._data.config.text_batch_size
        chosen = self._nameable[torch.randint(len(self._nameable), (size,), generator=given.generator)]
        return chosen, given.other_faces(chosen), given.dropout(size)

    def loss(self, chosen: Tensor, faces: Tensor, dropout: Tensor) -> Tensor:
        wanted = self._data.named_condition(chosen)
        parts = zip(self._data.condition(chosen, faces, dropout), wanted)
        return sum((part.float() - want.float()).square().mean() for part, want in parts if part is not None)


class DenoisingObjective(Objective):
    """From faces to what the base model predicts, in pictures of the people, for their names."""

    lr_setting = "lr"

    def __init__(self, steps: int, lr: float, data: TrainingData):
        super().__init__(steps, lr, data)
        self._weights = min_snr(data.backbone, data.config.snr_gamma, data.config.snr_scale)

    def draw(self) -> tuple[Tensor, ...]:
        """Pictures (B,), faces (B, 512), dropout, timesteps (B,) and noise (B, c, h, w)."""
        given, size = self._data, self._data.config.batch_size
        latents, generator = given.pictures.latents, given.generator
        chosen = torch.randint(len(latents), (size,), generator=generator)
        timesteps = torch.randint(given.backbone.num_timesteps, (size,), generator=generator)
        noise = torch.randn(size, *latents.shape[1:], generator=generator)
        return chosen, given.other_faces(chosen), given.dropout(size), timesteps, noise

    def loss(self, chosen: Tensor, faces: Tensor, dropout: Tensor, timesteps: Tensor, noise: Tensor) -> Tensor:
        backbone, device = self._data.backbone, self._data.backbone.device
        condition = self._data.condition(chosen, faces, dropout)
        latents = self._data.pictures.latents[chosen].to(device, torch.float32)
        steps = send(timesteps, device)
        noised = backbone.add_noise(latents, send(noise, device), steps)
        with torch.no_grad():
            taught = backbone.predict(noised, steps, self._data.named_condition(chosen))
        error = (backbone.predict(noised, steps, condition) - taught).square().mean((1, 2, 3))
        return (error * self._weights[timesteps].to(device)).mean()


class LikenessObjective(DenoisingObjective):
    """The objective by pictures, and besides from faces to drawn ones that the recogniser takes for them."""

    lr_setting = "likeness_lr"

    def __init__(self, steps: int, lr: float, data: TrainingData, likeness: LikenessLoss):
        super().__init__(steps, lr, data)
        self._likeness, self._people = likeness, data.mean_faces()

    def draw(self) -> tuple[Tensor, ...]:
        """Those of the objective by pictures; and faces (B, 512) to draw, and the noise that they are drawn from."""
        by_picture = super().draw()
        chosen, noise = by_picture[0], by_picture[-1]
        start = torch.randn(noise.shape, generator=self._data.generator)
        return *by_picture, self._data.other_faces(chosen), start

    def loss(self, chosen: Tensor, *rest: Tensor) -> Tensor:
        *by_picture, faces, noise = rest
        config, device = self._data.config, self._data.backbone.device
        wanted = self._people[self._data.pictures.people[chosen]]
        condition = self._data.condition(chosen, faces, None)  # as users will have it, without dropout
        unlike = self._likeness(condition, send(noise, device), send(wanted, device))
        return super().loss(chosen, *by_picture) + config.likeness_weight * unlike


def min_snr(backbone: Backbone, gamma: float, scale: float) -> Tensor:
    """Weight of each timestep's loss, of noise or velocity: the picture's error counts min(scale · SNR, γ)."""
    steps = torch.arange(backbone.num_timesteps, device=backbone.device)
    one = torch.ones(len(steps), 1, 1, 1, device=backbone.device)
    signal = backbone.add_noise(one, torch.zeros_like(one), steps).view(-1).square().cpu()
    snr = signal / (1 - signal).clamp(min=1e-8)
    weight = (scale * snr).clamp(max=gamma)
    return weight / (snr if backbone.prediction == "eps" else snr + 1).clamp(min=1e-8)
