"""The training loop: pseudo-tokens, Enhancer, Adapter and K/V deltas of one person (arXiv 2507.11990, training).

It drives a `Backbone` and knows nothing of the front end behind it. Every random choice comes from
one seeded generator on the CPU, so that two backbones see the same run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from ..diffusion.backbone import Backbone, TextCondition
from ..diffusion.memory import with_less_memory
from ..diffusion.transfer import send
from ..errors import ConfigError, DivergedError
from ..families.base_models import BASE_MODELS
from ..identity.base_ref import BaseModelRef
from ..identity.identity import Identity
from ..method.anchor import Anchor, celebrity_names, cross_initialise, names_basis, spread_of_names
from ..method.losses import mahalanobis_to, squared_to
from ..text.captions import PERSON_CAPTIONS
from ..text.tokenized import Caption, captions_of_photos, fill
from ..version import __version__
from .batches import Batch, BatchSampler, Bucket, Photos, count_photos, undone_on_error
from .config import TrainConfig
from .divergence import MAX_LOSS, READ_EVERY, divergence
from .likeness_loss import LikenessLoss
from .person import BuildPerson, build_person

_LOWER_LR = "Lower the learning rates, the K/V rate first."

OnStep = Callable[[int, Sequence[float]], None]
"""Called after each step with the steps done and the losses read so far; it may raise to cancel."""


class Trainer:
    """One person's training on one backbone.

    Args:
        backbone: the frozen base model.
        photos: to train on, one entry a size; a tensor (P, H, W, 3) in 0…1 are photos of which nothing else is known.
        id_embeds: `a` (512,), L2-normalised identity embedding.
        names: celebrity names for the cross initialisation, or a single phrase.
        captions: captions with `{}` where the person stands.
        build_person: what is trained.
        likeness: what `config.likeness_weight` is the weight of.

    Raises:
        ShapeError, ConfigError: an input that does not fit; a caption that is too long, before anything is encoded.
    """

    def __init__(
        self,
        backbone: Backbone,
        photos: Tensor | Sequence[Photos],
        id_embeds: Tensor,
        config: TrainConfig = TrainConfig(),
        names: Iterable[str] | None = None,
        captions: Sequence[str] = PERSON_CAPTIONS,
        build_person: BuildPerson = build_person,
        likeness: LikenessLoss | None = None,
    ):
        if config.likeness_weight and likeness is None:
            raise ConfigError("a LikenessLoss", "none", "Give one, or set likeness_weight to 0.")
        if config.kv_rank is None:
            config = dataclasses.replace(config, kv_rank=BASE_MODELS[backbone.base_model].kv_rank)
        self.backbone, self.config, self.likeness = backbone, config, likeness
        photos = [Photos(photos)] if isinstance(photos, Tensor) else photos
        self._captions, counts = captions_of_photos(backbone, photos, captions, config.num_tokens)
        buckets, first = [], 0
        for part, each in zip(photos, counts):  # before the text encoder and the UNet need the memory
            buckets.append(Bucket.of(backbone, part, each, first))
            first += sum(each)
        names = celebrity_names() if names is None else tuple(names)
        anchor = cross_initialise(backbone, names, config.num_tokens)
        basis = names_basis(backbone, names, config.num_tokens, config.axes) if config.start == "names" else None
        self.person = build_person(backbone, anchor, id_embeds, config, basis)
        start = {encoder: tokens.detach().clone() for encoder, tokens in self.person.tokens.items()}
        self._distances = _distances(backbone, start, anchor, names, config)
        self.sampler = BatchSampler(buckets, backbone.num_timesteps, config)
        self.optimizer = torch.optim.AdamW(
            self.person.parameter_groups(config), weight_decay=config.weight_decay, eps=config.adam_epsilon
        )
        self.micro_batch = config.batch_size  # photos whose gradients are computed together
        self.losses: list[float] = []  # of the steps done, as far as they were read
        self.average: dict[str, Tensor] = {}  # of the weights after the steps to be averaged, as far as they are done
        self._good: dict[str, Tensor] = {}  # weights at the start, then at the last reading
        self._unread: list[Tensor] = []
        self._stopped = False
        self.scaler = torch.amp.GradScaler(backbone.device.type, enabled=backbone.scales_loss)

    def run(self, on_step: OnStep | None = None) -> tuple[float, ...]:
        """Train up to `config.steps`, from where the training stands; the denoising loss of each step.

        Raises:
            TrainingError: the training diverged; the person is as at the last reading of the losses before that.
        """
        self._good = self._good or _copied(self.weights())
        with torch.enable_grad(), self.kv_deltas():
            for step in range(len(self.losses) + 1, self.config.steps + 1):
                if self._stopped:
                    break
                with undone_on_error(self.generator):
                    self._unread.append(self.step(self.sampler.draw()))
                self._average(step)
                if len(self._unread) == READ_EVERY or step == self.config.steps:
                    self.read_losses()
                if on_step:
                    on_step(step, self.losses)
            self.read_losses()
        return tuple(self.losses)

    def stop(self) -> None:
        """End `run` after the step that is being done."""
        self._stopped = True

    def read_losses(self) -> list[float]:
        """The losses of all steps so far; it waits for the device.

        Raises:
            TrainingError: as `run`.
        """
        if self._unread:
            losses = self.losses + torch.stack(self._unread).tolist()
            self._unread.clear()
            weights = self.weights()
            said = divergence(losses, len(self.losses), weights)
            if said:
                self._restore()
                remedy = f"{_LOWER_LR} What was learnt in {len(self.losses)} steps is kept."
                raise DivergedError(f"a finite loss of at most {MAX_LOSS:g}", said, remedy)
            self.losses = losses
            self._good = _copied(weights)
        return self.losses

    @property
    def generator(self) -> torch.Generator:
        """Of all random choices."""
        return self.sampler.generator

    def weights(self) -> dict[str, Tensor]:
        """All that is trained, by name, detached."""
        return self.person.state_dict() | self.person.kv.state_dict()

    @torch.no_grad()
    def _average(self, step: int) -> None:
        """Take a step's weights into the mean, which takes their place after the last one."""
        steps = self.config.steps
        counted = step - (steps - int(steps * self.config.swa_fraction))
        for key, weight in self.weights().items() if counted > 0 else ():
            mean = self.average.setdefault(key, torch.zeros_like(weight))
            mean += (weight - mean) / counted
            if step == steps:
                weight.copy_(mean)

    @torch.no_grad()
    def _restore(self) -> None:
        for key, weight in self.weights().items():
            weight.copy_(self._good[key])

    def kv_deltas(self) -> AbstractContextManager[None]:
        """The K/V deltas hung into the backbone, while open; nothing where none are trained."""
        return self.backbone.kv_deltas(self.person.kv.delta) if self.config.kv_lr > 0 else nullcontext()

    def step(self, batch: Batch) -> Tensor:
        """One optimiser step, inside `kv_deltas`; the batch's denoising loss, a detached scalar on the device.

        Where memory runs out gradients are checkpointed from then on, and if that is not enough the batch is taken in
        halves, at the same result up to rounding.
        """
        loss = with_less_memory(self, lambda: self._gradients(batch))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss

    def _gradients(self, batch: Batch) -> Tensor:
        """Gradients of the batch's loss, of likeness and of the regulariser; the first, detached."""
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.backbone.device)
        for part in batch.parts(self.micro_batch):
            loss = self.loss(part) * (len(part.photos) / len(batch.photos))
            self.scaler.scale(loss).backward()
            total += loss.detach()
        if batch.drawn is not None:
            self._likeness_gradients(batch)
        if self.config.regularizer_weight:
            self.scaler.scale(self.config.regularizer_weight * self.regularizer()).backward()
        return total

    def _likeness_gradients(self, batch: Batch) -> None:
        size, face = self.micro_batch, self.person.id_embeds
        for noise, captions in zip(batch.drawn.split(size), batch.drawn_captions.split(size)):
            condition = self.condition([self._captions[index] for index in captions.tolist()])
            loss = self.likeness(condition, send(noise, self.backbone.device), face)
            share = len(noise) / len(batch.drawn)
            self.scaler.scale(self.config.likeness_weight * share * loss).backward()

    def loss(self, batch: Batch) -> Tensor:
        """Mean squared error of the UNet's prediction, a scalar."""
        backbone, device = self.backbone, self.backbone.device
        bucket, photos = self.sampler.buckets[batch.bucket], send(batch.photos, device)
        latents = bucket.latents.mean[photos]
        if batch.posterior is not None:
            latents = latents + bucket.latents.deviation[photos] * send(batch.posterior, device)
        timesteps, noise = send(batch.timesteps, device), send(batch.noise, device)
        distinct, position = batch.captions.unique(return_inverse=True)
        condition = self.condition([self._captions[index] for index in distinct.tolist()])
        position = send(position, device)
        condition = TextCondition(*(part if part is None else part[position] for part in condition))
        prediction = backbone.predict(backbone.add_noise(latents, noise, timesteps), timesteps, condition)
        error = (prediction - backbone.target(latents, noise, timesteps)).square()
        return error.mean() if bucket.emphasis is None else (error * bucket.emphasis[photos]).mean()

    def condition(self, captions: Sequence[Caption]) -> TextCondition:
        """The person's text condition of each caption."""
        tokens = {encoder: [vectors] * len(captions) for encoder, vectors in self.person.tokens.items()}
        return self.person.adapt(self.backbone.encode(fill(captions, tokens)))

    def regularizer(self) -> Tensor:
        """Mahalanobis distance of the tokens to their anchors, summed over the text encoders."""
        tokens = self.person.tokens
        return sum(distance(tokens[encoder]) for encoder, distance in self._distances.items())

    @torch.no_grad()
    def identity(self, name: str, base_checkpoint: str = "", base_hash: str = "", **record) -> Identity:
        """The person as trained so far, in half precision on the CPU.

        Args:
            base_checkpoint, base_hash: as in `BaseModelRef`.
            record: `training` and `thumbnail`, as in `Identity`.

        Raises:
            DivergedError: a trained value is not finite, or too large for half precision.
        """
        person = self.person
        adapter = person.adapter
        grounding = None if adapter is None else adapter.grounding(person.fused())
        trained = [*person.parameters(), *person.kv.parameters(), *([] if grounding is None else [grounding])]
        if not all(tensor.half().isfinite().all() for tensor in trained):
            raise DivergedError("finite weights", "NaN or infinity after training", _LOWER_LR)
        return Identity(
            name=name,
            base_ref=BaseModelRef.of(self.backbone, self.config.heads, self.config.beta, base_checkpoint, base_hash),
            tokens=dict(person.tokens),
            anchor=person.anchor,
            grounding=grounding,
            id_embeds=person.id_embeds,
            adapter={} if adapter is None else adapter.applied_weights(),
            kv=person.kv.state_dict(),
            **record,
        ).to(torch.float16)


def training_record(
    config: TrainConfig, photos: Sequence[Photos], losses: Sequence[float], fingerprint: str
) -> dict[str, Any]:
    """What an identity tells of its training (`Identity.training`)."""
    return {
        **config.as_dict(),
        "sizes": [f"{part.images.shape[2]}x{part.images.shape[1]}" for part in photos],
        "photos": count_photos(photos),
        "losses": [round(loss, 6) for loss in losses],
        "fingerprint": fingerprint,
        "version": __version__,
    }


def _distances(
    backbone: Backbone, start: Mapping[str, Tensor], anchor: Anchor, names: Iterable[str], config: TrainConfig
) -> dict[str, Callable[[Tensor], Tensor]]:
    """Text encoder → the regulariser's distance of its tokens to where they start."""
    if config.regularizer == "l2":
        return {encoder: squared_to(part) for encoder, part in start.items()}
    spread = spread_of_names(backbone, names, config.num_tokens) if config.regularizer == "names" else anchor
    return {encoder: mahalanobis_to(part, config.zeta, spread[encoder]) for encoder, part in start.items()}


def _copied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: weight.clone() for key, weight in weights.items()}
