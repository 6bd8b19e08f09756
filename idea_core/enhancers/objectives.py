"""The objectives of an `EnhancerModel`: text, denoising, likeness.

Text: a face gives the text condition that the person's name gives. It needs no UNet, and does most of the work.
Denoising: the frozen base model denoises another image of the person with the face as it does with the name. Likeness:
the base model draws the person of a face, and the recogniser measures the face similarity.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from ..diffusion.backbone import TextCondition
from ..diffusion.memory import send
from ..method.anchor import ROWS
from ..training.likeness_loss import LikenessLoss
from .training_data import PeopleBatch, TrainingData

_CAPTIONS_KEPT = 64  # of language models in the CPU's memory, of up to 16 megabytes each
_NAMED_KEPT = 2048  # people in captions there, of up to a megabyte each
_COMPARED = 32  # rows from the name on


class Objective(ABC):
    """A number of steps with one loss and one learning rate."""

    lr_setting: str
    """Name of the learning rate's setting."""

    def __init__(self, steps: int, lr: float, data: TrainingData):
        self.steps, self._lr, self._data = steps, lr, data

    @abstractmethod
    def draw(self) -> PeopleBatch:
        """Sample a batch."""

    @abstractmethod
    def loss(self, batch: PeopleBatch) -> Tensor:
        """Mean loss of a batch or a part of it, a scalar."""

    def lr_after(self, done: int) -> float:
        """Learning rate after `done` steps: a warm-up in the first fiftieth of all, a fall in the last half."""
        warm_up, fall = (done + 1) / max(1, self.steps // 50), 2 * (1 - done / self.steps)
        return self._lr * min(1.0, warm_up) * (min(1.0, fall) * 0.95 + 0.05)


class TextObjective(Objective):
    """Faces give the text conditions that the people's names give.

    Raises:
        TrainingError: nobody's name has as many tokens as a person.
    """

    lr_setting = "text_lr"
    exactly = True
    """Whether names need exactly as many tokens as a person."""

    def __init__(self, steps: int, lr: float, data: TrainingData):
        super().__init__(steps, lr, data)
        self._nameable = data.nameable(self.exactly)

    def draw(self) -> PeopleBatch:
        data, size = self._data, self._data.config.text_batch_size
        chosen = self._nameable[torch.randint(len(self._nameable), (size,), generator=data.generator)]
        return PeopleBatch(chosen, data.other_faces(chosen), data.dropout(size))

    def loss(self, batch: PeopleBatch) -> Tensor:
        wanted = self._data.named_condition(batch.pictures)
        got = self._data.condition(batch.pictures, batch.faces, batch.dropout)
        parts = [(got.context, wanted.context), (got.pooled, wanted.pooled)]
        pairs = [(part, want) for part, want in parts if part is not None and want is not None]
        return torch.stack([(part.float() - want.float()).square().mean() for part, want in pairs]).sum()


class RowsObjective(TextObjective):
    """Faces give the rows of the text condition that the people's names give, there and in the words that follow.

    For language models: the network takes no part, and each prompt is encoded once. A name may have more tokens than a
    person; its last ones count. Errors are counted in names' standard deviations. All other rows are to stay as they
    are.

    Raises:
        TrainingError: nobody's name has as many tokens as a person.
    """

    exactly = False

    def __init__(self, steps: int, lr: float, data: TrainingData):
        super().__init__(steps, lr, data)
        first = {prompt: number for number, prompt in reversed(list(enumerate(data.pictures.prompts)))}
        self._captions = [first[prompt] for prompt in data.pictures.prompts]  # the first image of the same
        self._plain = lru_cache(_CAPTIONS_KEPT)(self._encode_mean_name)
        self._by_name = lru_cache(_NAMED_KEPT)(self._rows_of_name)

    def loss(self, batch: PeopleBatch) -> Tensor:
        model, device = self._data.model, self._data.backbone.device
        faces = send(batch.faces, device)
        tokens = model.tokens(faces, send(batch.dropout, device))[ROWS]
        fused, spread = model.fused(faces), model.scale.mean(0)
        pictures = batch.pictures.tolist()
        groups: dict[int, list[int]] = {}
        for place, index in enumerate(pictures):
            groups.setdefault(self._captions[index], []).append(place)
        total = torch.zeros((), device=device)
        for caption, places in groups.items():
            known, first = self._plain(caption)
            plain = known.map(lambda part: send(part, device)).rows(torch.zeros(len(places), dtype=torch.long))
            changed = model.adapter(plain.with_rows(tokens[places]).context, fused[places])
            error = (changed - plain.context) / spread
            for place, got, away in zip(places, changed, error):
                wanted = send(self._by_name(self._person(pictures[place]), caption), device)
                last = min(first + len(wanted), len(got))
                near = ((got[first:last] - wanted[: last - first]) / spread).square().mean()
                others = torch.cat([away[:first], away[last:]])  # none where a prompt begins and ends with the name
                total = total + near + (others.square().mean() if len(others) else 0.0)
        return total / len(pictures)

    def _person(self, index: int) -> int:
        return int(self._data.pictures.people[index])

    @torch.no_grad()
    def _encode_mean_name(self, caption: int) -> tuple[TextCondition, int]:
        """The condition of an image's caption with the mean name, and the first row of that."""
        read = self._data.model.read
        assert read is not None
        condition = self._data.encode_caption(caption, {encoder: [part] for encoder, part in read.items()})
        assert condition.places is not None
        return condition.map(lambda part: part.cpu()), int(condition.places[0, 0])

    @torch.no_grad()
    def _rows_of_name(self, person: int, caption: int) -> Tensor:
        """The rows (r, d) that a person's name gives in an image's caption, and those after it."""
        name = self._data.embedded_name(person)
        condition = self._data.encode_caption(caption, {encoder: [part] for encoder, part in name.items()})
        assert condition.places is not None
        first = int(condition.places[0, -self._data.model.num_tokens])
        return condition.context[0, first : first + _COMPARED].float().cpu().clone()


class DenoisingObjective(Objective):
    """Faces give the predictions, in images of the people, that their names give."""

    lr_setting = "lr"

    def draw(self) -> PeopleBatch:
        data, size = self._data, self._data.config.batch_size
        latents, generator = data.pictures.latents, data.generator
        chosen = torch.randint(len(latents), (size,), generator=generator)
        levels = data.backbone.schedule.draw(size, generator)
        noise = torch.randn(size, *latents.shape[1:], generator=generator)
        return PeopleBatch(chosen, data.other_faces(chosen), data.dropout(size), levels, noise)

    def loss(self, batch: PeopleBatch) -> Tensor:
        assert batch.levels is not None and batch.noise is not None
        config = self._data.config
        backbone, device = self._data.backbone, self._data.backbone.device
        condition = self._data.condition(batch.pictures, batch.faces, batch.dropout)
        latents = self._data.pictures.latents[batch.pictures].to(device, torch.float32)
        levels = send(batch.levels, device)
        noised = backbone.schedule.add_noise(latents, send(batch.noise, device), levels)
        with torch.no_grad():
            by_name = backbone.predict(noised, levels, self._data.named_condition(batch.pictures))
        error = (backbone.predict(noised, levels, condition) - by_name).square().mean((1, 2, 3))
        weights = backbone.schedule.min_snr(batch.levels, config.snr_gamma, config.snr_scale)
        return (error * weights.to(device)).mean()


class LikenessObjective(DenoisingObjective):
    """The denoising objective, and the likeness loss on images drawn from faces."""

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
        condition = self._data.condition(batch.pictures, batch.drawn_faces, None)  # without dropout, as in use
        unlike = self._likeness(condition, send(batch.drawn_noise, device), send(wanted, device))
        return super().loss(batch) + self._data.config.likeness_weight * unlike
