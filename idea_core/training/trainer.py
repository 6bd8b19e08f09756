"""The training loop: pseudo-tokens, Enhancer, Adapter and K/V deltas of one person (arXiv 2507.11990, training).

It drives a `Backbone`, whatever front end is behind it. One seeded generator on the CPU makes every random choice, so
two backbones see the same run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..diffusion.backbone import Backbone, Prompt, Recordings, TextCondition
from ..diffusion.memory import send, with_less_memory
from ..errors import ConfigError, DivergedError
from ..faces import FaceEngine
from ..families import BASE_MODELS
from ..identity.base_ref import BaseModelRef
from ..identity.identity import Identity
from ..method.anchor import celebrity_names
from ..text.captions import PERSON_CAPTIONS
from .batches import Batch, BatchSampler, PhotoDataset, Photos
from .config import TrainConfig
from .denoising import DenoisingLoss
from .faster import FasterSteps
from .inputs import Inputs
from .likeness_loss import LikenessLoss
from .loop import MAX_LOSS, TrainingLoop, adamw, explosion, moments, not_finite
from .person import PersonModel
from .recorded import RecordedStep, Recorder, capturable, recorder_for
from .start import NamesStart, Start, fitted

_LOWER_LR = "Lower the learning rates, kv_lr first."


class Trainer(TrainingLoop):
    """One person's training on one backbone.

    Args:
        backbone: the frozen base model.
        dataset: the photos, encoded by the backbone.
        likeness: the loss whose weight is `config.likeness_weight`; needed where that is above 0.

    Raises:
        ConfigError: a `likeness_weight` without `likeness`.
    """

    def __init__(
        self,
        backbone: Backbone,
        dataset: PhotoDataset,
        person: PersonModel,
        config: TrainConfig,
        likeness: LikenessLoss | None = None,
    ):
        if config.likeness_weight and likeness is None:
            raise ConfigError("a LikenessLoss", "none", "Give one, or set likeness_weight to 0.")
        self.config, self.person, self.likeness, self.dataset = config, person, likeness, dataset
        self.sampler = BatchSampler(dataset.buckets, backbone.schedule, config)
        self._denoising = DenoisingLoss(backbone, person, dataset)
        transformer, eps = BASE_MODELS[backbone.base_model].transformer, config.adam_epsilon
        groups = person.parameter_groups(config, 1.0 if transformer is None else transformer.kv_lr_scale)
        optimizer = adamw(groups, backbone.device, weight_decay=config.weight_decay, eps=eps)
        super().__init__(backbone, optimizer, self.sampler.generator, config.steps, config.batch_size)
        recorder = recorder_for(backbone.device) if backbone.recordings is None else None
        self.faster = FasterSteps(self, recorder) if recorder else None

    @classmethod
    def of(
        cls,
        backbone: Backbone,
        photos: Tensor | Sequence[Photos],
        id_embeds: Tensor,
        config: TrainConfig = TrainConfig(),
        names: Iterable[str] | None = None,
        captions: Sequence[str] = PERSON_CAPTIONS,
        start: Start = NamesStart(),
        engine: FaceEngine | None = None,
    ) -> Trainer:
        """A training on photos. To save memory, photos and likeness loss use the VAE before the person is built.

        Args:
            photos: one entry for each size; or a tensor (P, H, W, 3) in 0…1, without notes, masks and names.
            id_embeds: `a` (512,), L2-normalised.
            names: names of well-known people, or a single phrase; None: the list of the package.
            captions: with `{}` where the person stands.
            engine: finds faces for the likeness loss; needed where `config.likeness_weight` is above 0.
        """
        config = fitted(start.configure(config), backbone)
        photos = [Photos(photos)] if isinstance(photos, Tensor) else photos
        dataset = PhotoDataset.encode(backbone, photos, captions, config.num_tokens)
        likeness = None
        if engine is not None and config.likeness_weight:
            likeness = LikenessLoss(backbone, engine, config.likeness_sampling_steps, config.likeness_guidance)
        names = celebrity_names() if names is None else tuple(names)
        return cls(backbone, dataset, start.build_person(backbone, id_embeds, config, names), config, likeness)

    def active(self) -> AbstractContextManager[None]:
        """While open, the backbone computes with the K/V deltas, if they are trained."""
        if self.config.kv_lr == 0:
            return nullcontext()
        return self.backbone.kv_deltas(self.person.kv.weights, self.config.kv_scope)

    def drawn_step(self) -> Tensor:
        return self.step(self.sampler.draw())

    def problem(self, losses: Sequence[float], read: int) -> str:
        return not_finite(losses, read, self.weights()) or explosion(losses, read)

    def diverged(self, problem: str) -> DivergedError:
        remedy = f"{_LOWER_LR} What was learnt in {len(self.losses)} steps is kept."
        return DivergedError(f"a finite loss of at most {MAX_LOSS:g}", problem, remedy)

    def finish_step(self, step: int) -> None:
        self._add_to_average(step)
        super().finish_step(step)

    def weights(self) -> dict[str, Tensor]:
        return self.person.weights()

    @torch.no_grad()
    def _add_to_average(self, step: int) -> None:
        """Add a step's weights to their mean, which replaces them after the last step (arXiv 1803.05407)."""
        counted = step - (self.steps - int(self.steps * self.config.swa_fraction))
        for key, weight in self.weights().items() if counted > 0 else ():
            mean = self.average.setdefault(key, torch.zeros_like(weight))
            mean += (weight - mean) / counted
            if step == self.steps:
                weight.copy_(mean)

    def step(self, batch: Batch) -> Tensor:
        """One optimiser step, inside `active`; the batch's denoising loss, a detached scalar on the device."""
        return self.faster(batch) if self.faster else self.computed_step(batch)

    def computed_step(self, batch: Batch, fixed: bool = False) -> Tensor:
        """`step` on any device; `fixed`: in the shapes of a recorded one.

        If memory runs out, gradients are checkpointed from then on. If it still runs out, the batch is halved, which
        changes the result only by rounding.
        """
        loss = with_less_memory(self, lambda: self._gradients(batch, fixed))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss

    def recorded_step(self, recorder: Recorder, batch: Batch) -> RecordedStep:
        """A recording of `step` for batches of this one's bucket, which may have other captions."""
        with capturable(self.optimizer, self.backbone.device):
            return RecordedStep(recorder, partial(self._whole_step, batch.bucket), self._denoising.fixed_inputs, batch)

    def _whole_step(self, bucket: int, inputs: Inputs) -> Tensor:
        """`computed_step` of what is on the device; nothing in it waits for the host."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._denoising(bucket, inputs)
        loss.backward()
        self._regulariser_gradients()
        self.optimizer.step()
        return loss.detach()

    def resting(self) -> list[Tensor] | None:
        """All tensors that a step reads or changes where they are; None: some of the base model's move."""
        weights = self.backbone.resting_weights()
        return None if weights is None else [*weights, *self.changing().values()]

    @property
    def recordings(self) -> Recordings | None:
        return self.faster or super().recordings

    def changing(self) -> dict[str, Tensor]:
        """All tensors that a step changes, by name: weights and the optimiser's moments."""
        return self.weights() | moments(self.optimizer)

    @property
    def steps_left(self) -> int:
        return self.steps - self.steps_done

    @property
    def reads_captions_on_host(self) -> bool:
        return self._denoising.captions_device != self.backbone.device

    def _gradients(self, batch: Batch, fixed: bool = False) -> Tensor:
        """Add up gradients of denoising loss, likeness loss and regulariser; the denoising loss, detached."""
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.backbone.device)
        for part in self._denoising.parts(batch, self.micro_batch):
            loss = self.loss(part, fixed) * (len(part.photos) / len(batch.photos))
            self.scaler.scale(loss).backward()
            total += loss.detach()
        if batch.drawn is not None:
            self._likeness_gradients(batch)
        self._regulariser_gradients()
        return total

    def _regulariser_gradients(self) -> None:
        if self.config.regularizer_weight:
            self.scaler.scale(self.config.regularizer_weight * self.person.regularizer()).backward()

    def _likeness_gradients(self, batch: Batch) -> None:
        """Add gradients of the likeness loss on images that are drawn."""
        assert self.likeness is not None and batch.drawn is not None and batch.drawn_captions is not None
        size = 1 if self._denoising.one_caption else self.micro_batch
        pieces = zip(batch.drawn.split(size), batch.drawn_captions.split(size))
        for noise, captions in pieces:
            condition = self.condition([self.dataset.captions[number] for number in captions.tolist()])
            loss = self.likeness(condition, send(noise, self.backbone.device), self.person.id_embeds)
            share = len(noise) / len(batch.drawn)
            self.scaler.scale(self.config.likeness_weight * share * loss).backward()

    def loss(self, batch: Batch, fixed: bool = False) -> Tensor:
        """Mean squared error of the network's prediction, a scalar."""
        inputs = self._denoising.fixed_inputs if fixed else self._denoising.inputs
        return self._denoising(batch.bucket, inputs(batch))

    def condition(self, captions: Sequence[Prompt]) -> TextCondition:
        """The person's text condition of each caption."""
        return self._denoising.condition(captions)

    @torch.no_grad()
    def identity(self, name: str, training: Mapping[str, Any] = {}, thumbnail: str = "", **checkpoint: str) -> Identity:
        """The person as trained so far, in half precision on the CPU.

        Args:
            training, thumbnail: as in `Identity`.
            checkpoint: `base_checkpoint` and `base_hash` of `BaseModelRef`.

        Raises:
            DivergedError: a trained value is not finite, or too large for half precision.
        """
        base_ref = BaseModelRef.of(self.backbone, self.config.heads, self.config.beta, **checkpoint)
        base_ref = dataclasses.replace(base_ref, adapter_width=self.config.adapter_width)
        identity = self.person.identity(name, base_ref, self.config.kv_scope)
        if identity is None:
            raise DivergedError("finite weights", "NaN or infinity after training", _LOWER_LR)
        return dataclasses.replace(identity, training=training, thumbnail=thumbnail)
