"""The denoising loss of a person: photos, captions and draws → a scalar, on the device alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..diffusion.backbone import Backbone, Prompt, TextCondition, prediction_error
from ..families import BASE_MODELS
from .batches import Batch, PhotoDataset
from .encoder import person_encoder
from .inputs import Inputs, InputsOf
from .person import PersonModel


class DenoisingLoss:
    """Mean squared error of the network's prediction for a person's photos.

    Attributes:
        inputs: sends batches to the device.
        fixed_inputs: the same, in one shape for all batches of a bucket.
        one_caption: whether only photos of one caption can be in a batch.
    """

    def __init__(self, backbone: Backbone, person: PersonModel, dataset: PhotoDataset):
        self._backbone, self._person, self._dataset = backbone, person, dataset
        self._encode = person_encoder(backbone, person, dataset.captions)
        self.inputs = InputsOf(dataset.captions, backbone.device, self._encode.rows_device)
        transformer = BASE_MODELS[backbone.base_model].transformer
        self.one_caption = transformer is not None and transformer.ragged
        self.fixed_inputs = replace(self.inputs, fixed=True)

    def parts(self, batch: Batch, size: int) -> list[Batch]:
        """A batch in pieces of at most `size` photos that can be computed together."""
        if self.one_caption:
            batch = replace(batch, captions=self.inputs.same[batch.captions])
        return batch.parts(size, self.one_caption)

    @property
    def captions_device(self) -> torch.device:
        """Where captions are read."""
        return self._encode.rows_device

    def __call__(self, bucket: int, inputs: Inputs) -> Tensor:
        """The loss, a scalar; of what the device holds."""
        photos, part = inputs.photos, self._dataset.buckets[bucket]
        latents = part.latents.mean[photos]
        if inputs.posterior_noise is not None:
            latents = latents + part.latents.std[photos] * inputs.posterior_noise
        condition = inputs.spread(self._person.adapt(self._encode.rows(inputs.captions)))
        error = prediction_error(self._backbone, latents, inputs.noise, inputs.levels, condition).square()
        return error.mean() if part.loss_weight is None else (error * part.loss_weight[photos]).mean()

    def condition(self, captions: Sequence[Prompt]) -> TextCondition:
        """The person's text condition of each caption, whether of the training or not."""
        return self._person.adapt(self._encode(captions))
