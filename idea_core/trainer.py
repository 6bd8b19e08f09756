"""The training loop: pseudo-tokens, Enhancer, Adapter and K/V deltas of one person (arXiv 2507.11990, training).

It drives a `Backbone` and knows nothing of the front end behind it. Every random choice comes from
one seeded generator on the CPU, so that two backbones see the same run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from .anchor import Anchor, celebrity_names, cross_initialise, spread_of_names
from .backbone import Backbone, TextCondition
from .batches import Batch, BatchSampler
from .captions import PERSON_CAPTIONS, with_note
from .config import TrainConfig
from .errors import TrainingError
from .identity import Identity
from .losses import mahalanobis_to, squared_to
from .person import PersonModel
from .shapes import require_shape
from .tokenized import fill, tokenize_captions
from .version import __version__

READ_EVERY = 10  # steps between two reads of the losses, each of which waits for the device

_LOWER_RATES = "Lower the learning rates, the K/V rate first."

OnStep = Callable[[int, Sequence[float]], None]
"""Called after each step with the steps done and the losses read so far; it may raise to cancel."""


class Trainer:
    """One person's training on one backbone.

    Args:
        backbone: the frozen base model.
        images: photos (P, H, W, 3) in 0…1, all of the size to train at.
        arcface: `a` (512,), L2-normalised identity embedding.
        names: celebrity names for the cross initialisation, or a single phrase.
        captions: captions with `{}` where the person stands.
        notes: of each photo what else is to be seen in it (`with_note`); none: nothing is said.
        build_person: what is trained.
        masks: (P, H, W) in 0…1, how much each part of a photo counts, the face 1, the rest less; None: all alike.

    Raises:
        ShapeError, ConfigError: an input that does not fit.
    """

    def __init__(
        self,
        backbone: Backbone,
        images: Tensor,
        arcface: Tensor,
        config: TrainConfig = TrainConfig(),
        names: Iterable[str] | None = None,
        captions: Sequence[str] = PERSON_CAPTIONS,
        notes: Sequence[str] = (),
        build_person: Callable[[Backbone, Anchor, Tensor, TrainConfig], PersonModel] = PersonModel,
        masks: Tensor | None = None,
    ):
        require_shape("images", images, "P", "H", "W", 3)
        if masks is not None:
            require_shape("masks", masks, *images.shape[:3])
        self.backbone, self.config = backbone, config
        with torch.no_grad():  # before the text encoder and the UNet need the memory
            self._latents = backbone.encode_images(torch.cat([images, images.flip(2)]))  # (2P, c, h, w)
        self._emphasis = None if masks is None else _emphasis(masks, self._latents)
        names = celebrity_names() if names is None else tuple(names)
        anchor = cross_initialise(backbone, names, config.n)
        self.person = build_person(backbone, anchor, arcface, config)
        start = {encoder: tokens.detach().clone() for encoder, tokens in self.person.tokens.items()}
        self._distances = _distances(backbone, start, anchor, names, config)
        of_photos = [with_note(captions, note) for note in notes or [""] * len(images)]
        self._captions = tokenize_captions(backbone, [caption for captions in of_photos for caption in captions])
        self.sampler = BatchSampler(self._latents, list(map(len, of_photos)), backbone.num_timesteps, config)
        self.optimizer = torch.optim.AdamW(
            self.person.parameter_groups(config), weight_decay=config.weight_decay, eps=config.epsilon
        )
        self.micro_batch = config.batch_size  # photos whose gradients are computed together
        self.losses: list[float] = []  # of the steps done, as far as they were read
        self._unread: list[Tensor] = []
        self.scaler = torch.amp.GradScaler(backbone.device.type, enabled=backbone.scales_loss)

    def run(self, on_step: OnStep | None = None) -> tuple[float, ...]:
        """Train up to `config.steps`, from where the training stands; the denoising loss of each step.

        Raises:
            TrainingError: the loss is no longer finite.
        """
        with torch.enable_grad(), self.kv_deltas():
            for step in range(len(self.losses) + 1, self.config.steps + 1):
                self._unread.append(self.step(self.sampler.draw()))
                if len(self._unread) == READ_EVERY or step == self.config.steps:
                    self.read_losses()
                if on_step:
                    on_step(step, self.losses)
        return tuple(self.losses)

    def read_losses(self) -> list[float]:
        """The losses of all steps so far; it waits for the device.

        Raises:
            TrainingError: one is not finite.
        """
        if self._unread:
            self.losses += torch.stack(self._unread).tolist()
            self._unread.clear()
            _require_finite(self.losses)
        return self.losses

    def kv_deltas(self) -> AbstractContextManager[None]:
        """The K/V deltas hung into the backbone, while open; nothing where none are trained."""
        return self.backbone.kv_deltas(self.person.kv.delta) if self.config.kv_rate > 0 else nullcontext()

    def step(self, batch: Batch) -> Tensor:
        """One optimiser step, inside `kv_deltas`; the batch's denoising loss, a detached scalar on the device.

        Where memory runs out the batch is taken in halves from then on, at the same result up to rounding.
        """
        while True:
            self.optimizer.zero_grad(set_to_none=True)
            try:
                loss = self._gradients(batch)
                break
            except torch.OutOfMemoryError:
                if self.micro_batch == 1:
                    raise
                self.micro_batch = (self.micro_batch + 1) // 2
            logging.warning("ID-EA: out of memory; going on with %d photos at a time.", self.micro_batch)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss

    def _gradients(self, batch: Batch) -> Tensor:
        """Gradients of the batch's loss and of the regulariser; the former, detached."""
        total = torch.zeros((), device=self.backbone.device)
        for part in batch.parts(self.micro_batch):
            loss = self.loss(part) * (len(part.photos) / len(batch.photos))
            self.scaler.scale(loss).backward()
            total += loss.detach()
        if self.config.regularizer_weight:
            self.scaler.scale(self.config.regularizer_weight * self.regularizer()).backward()
        return total

    def loss(self, batch: Batch) -> Tensor:
        """Mean squared error of the UNet's prediction, a scalar."""
        backbone, device = self.backbone, self.backbone.device
        photos = batch.photos.to(device)
        latents = self._latents[photos]
        timesteps, noise = batch.timesteps.to(device), batch.noise.to(device)
        distinct, position = batch.captions.unique(return_inverse=True)
        captions = [self._captions[index] for index in distinct.tolist()]
        tokens = {encoder: [vectors] * len(captions) for encoder, vectors in self.person.tokens.items()}
        condition = self.person.adapt(backbone.encode(fill(captions, tokens)))
        position = position.to(device)
        condition = TextCondition(*(part if part is None else part[position] for part in condition))
        prediction = backbone.predict(backbone.add_noise(latents, noise, timesteps), timesteps, condition)
        error = (prediction - backbone.target(latents, noise, timesteps)).square()
        return error.mean() if self._emphasis is None else (error * self._emphasis[photos]).mean()

    def regularizer(self) -> Tensor:
        """Mahalanobis distance of the tokens to their anchors, summed over the text encoders."""
        tokens = self.person.tokens
        return sum(distance(tokens[encoder]) for encoder, distance in self._distances.items())

    @torch.no_grad()
    def identity(self, name: str, **provenance) -> Identity:
        """The person as trained so far, in half precision on the CPU; `provenance` as in `Identity`.

        Raises:
            TrainingError: a trained value is not finite, or too large for half precision.
        """
        person = self.person
        fused = person.fused()
        trained = [*person.parameters(), *person.kv.parameters(), *([] if fused is None else [fused])]
        if not all(tensor.half().isfinite().all() for tensor in trained):
            raise TrainingError("finite weights", "NaN or infinity after training", _LOWER_RATES)
        return Identity(
            name=name,
            base_model=self.backbone.base_model,
            prediction=self.backbone.prediction,
            clip_layer=self.backbone.clip_layer,
            heads=self.config.heads,
            beta=self.config.beta,
            tokens=dict(person.tokens),
            anchor=person.anchor,
            fused=fused,
            id_embeds=person.arcface,
            adapter=person.adapter.state_dict() if person.adapter else {},
            kv=person.kv.state_dict(),
            **provenance,
        ).to(torch.float16)


def training_record(config: TrainConfig, images: Tensor, losses: Sequence[float], fingerprint: str) -> dict[str, Any]:
    """What an identity tells of its training (`Identity.training`)."""
    return {
        **config.as_dict(),
        "resolution": images.shape[1],
        "photos": images.shape[0],
        "losses": [round(loss, 6) for loss in losses],
        "fingerprint": fingerprint,
        "version": __version__,
    }


def _emphasis(masks: Tensor, latents: Tensor) -> Tensor:
    """Weights (2P, 1, h, w) of the latents' cells, of mean 1 in each photo, the second half mirrored."""
    both = torch.cat([masks, masks.flip(2)]).unsqueeze(1).to(latents)
    pooled = nn.functional.adaptive_avg_pool2d(both, latents.shape[-2:])
    mean = pooled.mean((1, 2, 3), keepdim=True)
    if not (mean > 0).all():
        raise TrainingError("masks with something in them", "an empty one", "Leave it out, or mark the face.")
    return pooled / mean


def _distances(
    backbone: Backbone, start: Mapping[str, Tensor], anchor: Anchor, names: Iterable[str], config: TrainConfig
) -> dict[str, Callable[[Tensor], Tensor]]:
    """Text encoder → the regulariser's distance of its tokens to where they start."""
    if config.regularizer == "l2":
        return {encoder: squared_to(part) for encoder, part in start.items()}
    spread = spread_of_names(backbone, names, config.n) if config.regularizer == "names" else anchor
    return {encoder: mahalanobis_to(part, config.zeta, spread[encoder]) for encoder, part in start.items()}


def _require_finite(losses: Sequence[float]) -> None:
    finite = torch.isfinite(torch.tensor(losses))
    if not finite.all():
        step = int(finite.logical_not().nonzero()[0]) + 1
        raise TrainingError("a finite loss", f"{losses[step - 1]} at step {step}", _LOWER_RATES)
