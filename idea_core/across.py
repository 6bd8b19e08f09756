"""Training across people: a `FaceModel` learns, for one frozen base model, whom a face embedding shows.

The base model is its own teacher: pictures that it made of people whom it knows by name, and their faces. There are two
lessons, one after the other. By text: from a face in one of the pictures comes the text condition that the name gives.
It needs no UNet, and carries most of the way. By pictures: from that face the frozen model has to denoise another
picture of the same person as it does from the name.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor, nn

from .anchor import Anchor, mean_name
from .backbone import Backbone, TextCondition
from .batches import undone_on_error
from .config import Settings
from .errors import DivergedError, TrainingError
from .face_model import BLOCKS, HIDDEN, FaceModel, face_condition
from .memory import with_less_memory
from .people_pictures import PeoplePictures
from .tokenized import Caption, fill, tokenize_captions
from .trainer import OnStep
from .transfer import send


@dataclass(frozen=True)
class AcrossConfig(Settings):
    """How a `FaceModel` is trained.

    Attributes:
        steps: optimiser steps.
        text_steps: of these, so many first ones learn by text; the others by pictures.
        batch_size: pictures per step; by text four times as many, for each costs a small part of what a picture costs.
        seed: of every random choice.
        heads, beta: of Enhancer and Adapter.
        rate, text_rate: AdamW's, by pictures and by text. Each lesson warms up, and falls to a twentieth over its
            last half.
        views: at most so many other pictures of a person give the face, as a user may give one photo or several.
        snr: γ of min-SNR weights (arXiv 2303.09556).
        noisiest: bound of those weights; the noisiest steps decide who is in a picture.
        weight_decay: AdamW's.
        dropout: share of the predictor's hidden values that each sample has to do without (arXiv 1207.0580): what is
            learned of some thousand people has to hold for others.
    """

    steps: int = 5000
    text_steps: int = 2500
    batch_size: int = 32
    seed: int = 0
    heads: int = 8
    beta: float = 0.4
    rate: float = 1e-4
    text_rate: float = 1e-3
    views: int = 3
    snr: float = 2.0
    noisiest: float = 5.0
    weight_decay: float = 1e-4
    dropout: float = 0.2

    @property
    def text_batch_size(self) -> int:
        return 4 * self.batch_size

    def __post_init__(self):
        for field in ("steps", "batch_size", "heads", "views"):
            self._require(field, isinstance(getattr(self, field), int) and getattr(self, field) >= 1, "at least 1")
        for field in ("beta", "rate", "text_rate", "snr", "noisiest"):
            self._require(field, getattr(self, field) > 0, "above 0")
        self._require("seed", 0 <= self.seed < 2**64, "from 0 to below 2 to the 64th")
        self._require("weight_decay", self.weight_decay >= 0, "at least 0")
        self._require("dropout", 0 <= self.dropout < 1, "from 0 to below 1")


class AcrossTrainer:
    """The training of a `FaceModel` on one backbone.

    Args:
        anchor: of the Enhancer.
        pictures: to learn from.
    """

    def __init__(
        self, backbone: Backbone, anchor: Anchor, pictures: PeoplePictures, config: AcrossConfig = AcrossConfig()
    ):
        self.backbone, self.pictures, self.config = backbone, pictures, config
        names = mean_name(backbone, pictures.names, next(iter(anchor.values())).shape[0])
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(config.seed)
            self.model = FaceModel(anchor, *names, config.heads, config.beta).to(backbone.device)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), config.rate, weight_decay=config.weight_decay)
        self.scaler = torch.amp.GradScaler(backbone.device.type, enabled=backbone.scales_loss)
        self.micro_batch = config.text_batch_size
        self.losses: list[float] = []  # of the steps done
        self.average: dict[str, Tensor] = {}
        self._stopped = False
        self._captions = tokenize_captions(backbone, pictures.prompts)
        self._names = [backbone.tokenize(name) for name in pictures.names]
        self._nameable = self._pictures_with_names()
        self._order, self._counts = pictures.people.argsort(stable=True), pictures.people.bincount()
        self._first = self._counts.cumsum(0) - self._counts
        self._place = self._order.argsort()  # of each picture among all, by person
        self._weights = _min_snr(backbone, config)

    def run(self, on_step: OnStep | None = None) -> tuple[float, ...]:
        """Train up to `config.steps`, from where the training stands; the loss of each step.

        Raises:
            DivergedError: the loss is no longer finite.
        """
        with torch.enable_grad():
            for step in range(len(self.losses) + 1, self.config.steps + 1):
                if self._stopped:
                    break
                with undone_on_error(self.generator):
                    self.step()
                if on_step:
                    on_step(step, self.losses)
        return tuple(self.losses)

    def stop(self) -> None:
        """End `run` after the step that is being done."""
        self._stopped = True

    def weights(self) -> dict[str, Tensor]:
        """All that is trained, by name, detached."""
        return self.model.state_dict()

    def read_losses(self) -> list[float]:
        return self.losses

    def step(self) -> float:
        """One step of the optimiser; its loss.

        Raises:
            DivergedError: a loss that is not finite, before anything has changed by it.
        """
        by_text = len(self.losses) < self.config.text_steps
        if len(self.losses) == self.config.text_steps:  # what the gradients were like by text says nothing of those now
            self.optimizer.state.clear()
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate()
        batch = self._draw_by_text() if by_text else self._draw_by_picture()
        value = with_less_memory(self, lambda: self._gradients(batch))
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        if not self.scaler.is_enabled() and not norm.isfinite():
            raise self._diverged(f"gradients of norm {norm.item()}")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.losses.append(value)
        return value

    def _gradients(self, batch: Sequence[Tensor]) -> float:
        """Gradients of a batch, in parts that fit into memory; its loss."""
        self.optimizer.zero_grad(set_to_none=True)
        total, count = 0.0, len(batch[0])
        self.micro_batch = min(self.micro_batch, count)
        for part in zip(*(tensor.split(self.micro_batch) for tensor in batch)):
            loss = self._loss(*part) * (len(part[0]) / count)
            value = loss.item()
            if not isfinite(value):
                raise self._diverged(f"{value}")
            self.scaler.scale(loss).backward()
            total += value
        return total

    def _diverged(self, got: str) -> DivergedError:
        return DivergedError("a finite loss", f"{got} at step {len(self.losses) + 1}", "Lower the rate.")

    def kv_deltas(self) -> AbstractContextManager[None]:
        """Nothing: keys and values are not trained across people."""
        return nullcontext()

    def _rate(self) -> float:
        """Of the next step: in each lesson a warm-up over a fiftieth of its steps, a fall over its last half."""
        rate, done, total = self.config.text_rate, len(self.losses), min(self.config.text_steps, self.config.steps)
        if done >= total:
            rate, done, total = self.config.rate, done - total, self.config.steps - total
        return rate * min(1.0, (done + 1) / max(1, total // 50)) * (min(1.0, 2 * (1 - done / total)) * 0.95 + 0.05)

    def _draw_by_picture(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """For a lesson by pictures: those of `_draw_by_text`, timesteps (B,) and noise (B, c, h, w)."""
        size, generator, pictures = self.config.batch_size, self.generator, self.pictures
        chosen = torch.randint(len(pictures.latents), (size,), generator=generator)
        timesteps = torch.randint(self.backbone.num_timesteps, (size,), generator=generator)
        noise = torch.randn(size, *pictures.latents.shape[1:], generator=generator)
        return chosen, self._other_faces(chosen), self._dropout(size), timesteps, noise

    def _draw_by_text(self) -> tuple[Tensor, Tensor, Tensor]:
        """For a lesson by text: pictures (B,), of which captions and people count, faces (B, 512), and dropout."""
        size = self.config.text_batch_size
        chosen = self._nameable[torch.randint(len(self._nameable), (size,), generator=self.generator)]
        return chosen, self._other_faces(chosen), self._dropout(size)

    def _dropout(self, size: int) -> Tensor:
        """Factors (size, BLOCKS, HIDDEN) of a batch."""
        kept = torch.rand(size, BLOCKS, HIDDEN, generator=self.generator) >= self.config.dropout
        return kept / (1 - self.config.dropout)

    def _other_faces(self, chosen: Tensor) -> Tensor:
        """The mean face of some other pictures of the same people."""
        person = self.pictures.people[chosen]
        mine = self._place[chosen] - self._first[person]
        count = self._counts[person, None]
        drawn = torch.rand(len(chosen), self.config.views, generator=self.generator)
        others = (mine[:, None] + 1 + (drawn * (count - 1)).long()) % count  # never the picture itself
        faces = self.pictures.faces[self._order[self._first[person, None] + others]]  # (B, views, 512)
        views = torch.randint(1, self.config.views + 1, (len(chosen), 1), generator=self.generator)
        used = torch.arange(self.config.views) < views
        return nn.functional.normalize((faces * used[..., None]).sum(1), dim=-1)

    def _loss(self, chosen: Tensor, faces: Tensor, dropout: Tensor, *noised: Tensor) -> Tensor:
        captions, device = [self._captions[index] for index in chosen.tolist()], self.backbone.device
        wanted = self._named_condition(chosen, captions)
        condition = face_condition(self.backbone, self.model, captions, send(faces, device), send(dropout, device))
        return self._by_picture(chosen, condition, wanted, *noised) if noised else _difference(condition, wanted)

    def _by_picture(
        self, chosen: Tensor, condition: TextCondition, wanted: TextCondition, timesteps: Tensor, noise: Tensor
    ) -> Tensor:
        """How far what is predicted from faces is from what is predicted from names."""
        backbone, device = self.backbone, self.backbone.device
        latents = self.pictures.latents[chosen].to(device, torch.float32)
        steps = send(timesteps, device)
        noised = backbone.add_noise(latents, send(noise, device), steps)
        with torch.no_grad():
            taught = backbone.predict(noised, steps, wanted)
        error = (backbone.predict(noised, steps, condition) - taught).square().mean((1, 2, 3))
        return (error * self._weights[timesteps].to(device)).mean()

    @torch.no_grad()
    def _named_condition(self, chosen: Tensor, captions: Sequence[Caption]) -> TextCondition:
        """What captions about pictures (B,) give with the names of the people in them."""
        names = [self._names[person] for person in self.pictures.people[chosen].tolist()]
        return self.backbone.encode(fill(captions, {key: [name[key] for name in names] for key in names[0]}))

    def _pictures_with_names(self) -> Tensor:
        """Numbers of the pictures of people whose names take as many tokens as a person does."""
        lengths = [{len(ids) for ids in name.values()} for name in self._names]
        fitting = torch.tensor([length == {self.model.n} for length in lengths])
        chosen = fitting[self.pictures.people].nonzero()[:, 0]
        if self.config.text_steps and not len(chosen):
            raise TrainingError(
                f"people whose names are of {self.model.n} tokens, to learn by text",
                "none",
                "Give such names, as most first and last names are, or set text_steps to 0.",
            )
        return chosen


def _difference(condition: TextCondition, wanted: TextCondition) -> Tensor:
    """How far text conditions from faces are from those that the people's names give."""
    parts = [(part, want) for part, want in zip(condition, wanted) if part is not None]
    return sum((part.float() - want.float()).square().mean() for part, want in parts)


def _min_snr(backbone: Backbone, config: AcrossConfig) -> Tensor:
    """Weight of each timestep's loss, of noise or velocity: the picture's error counts min(noisiest · SNR, γ)."""
    steps = torch.arange(backbone.num_timesteps, device=backbone.device)
    one = torch.ones(len(steps), 1, 1, 1, device=backbone.device)
    signal = backbone.add_noise(one, torch.zeros_like(one), steps).view(-1).square().cpu()
    snr = signal / (1 - signal).clamp(min=1e-8)
    weight = (config.noisiest * snr).clamp(max=config.snr)
    return weight / (snr if backbone.prediction == "eps" else snr + 1).clamp(min=1e-8)
