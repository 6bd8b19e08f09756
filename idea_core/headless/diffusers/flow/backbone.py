"""A flow-matching pipeline as the trainer's `Backbone`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import Tensor

from ....diffusion.backbone import KV_SCOPES, Latents, Prompt, PromptTable, Recordings, TextCondition, TokenIds, Vectors
from ....diffusion.memory import send
from ....diffusion.schedule import FlowSchedule, Schedule
from ....errors import ConfigError
from ....families import BASE_MODELS
from ....text.captions import PLACEHOLDER
from ..images import VaeImages
from ..text import family_of
from .language import LanguageModel, ReadPrompt
from .layers import KVLayers, Where, marked
from .networks import NETWORKS


class FlowBackbone:
    """A frozen pipeline of Z-Image or FLUX.2 Klein through which gradients pass.

    Args:
        pipeline: `ZImagePipeline` or `Flux2KleinPipeline`.
        clip_layer: the family's own layer, or None: language models have no others.
        gradient_checkpointing: save memory by a second forward pass of the transformer.

    Raises:
        BaseModelError: another kind of pipeline.
        ConfigError: another layer.
    """

    def __init__(self, pipeline: Any, clip_layer: int | None = None, gradient_checkpointing: bool = False):
        self.base_model = family_of(pipeline)
        self.clip_layer: int | None = None
        base = BASE_MODELS[self.base_model]
        if clip_layer not in (None, base.clip_layer):
            raise ConfigError(f"no clip_layer on {base.title}", str(clip_layer), "Leave it out.")
        self._transformer = pipeline.transformer
        self._text, self._network = LanguageModel(pipeline, base), NETWORKS[base.pipeline](pipeline)
        self._images = VaeImages(pipeline.vae, self._network.scale)
        self._kv = KVLayers(self._transformer, base)
        self.schedule: Schedule = schedule_of(pipeline)
        self.prompt_length = base.prompt_length
        self.kv_shapes: Mapping[str, tuple[int, int]] = self._kv.shapes
        self.kv_scopes: Sequence[str] = KV_SCOPES
        self.recordings: Recordings | None = None
        self._scope: str | None = None
        for module in (self._transformer, pipeline.vae, self._text.model):
            module.requires_grad_(False).eval()
        self.gradient_checkpointing = gradient_checkpointing

    def compile(self) -> None:
        """Not known to work: what is marked as the person's changes from step to step. Raises ConfigError."""
        title = BASE_MODELS[self.base_model].title
        raise ConfigError("a UNet to compile", title, "Leave out --compile.")

    @property
    def device(self) -> torch.device:
        return self._transformer.device

    @property
    def dtype(self) -> torch.dtype:
        return self._transformer.dtype

    @property
    def gradient_checkpointing(self) -> bool:
        return self._transformer.is_gradient_checkpointing

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, on: bool) -> None:
        if on:
            self._transformer.enable_gradient_checkpointing(self._kv.recompute)
        else:
            self._transformer.disable_gradient_checkpointing()

    @property
    def scales_loss(self) -> bool:
        return self.dtype == torch.float16

    def tokenize(self, text: str) -> TokenIds:
        return {self._encoder: self._text.ids(f" {text}" if text else text)}  # words carry the blank before them

    def embed_tokens(self, _encoder: str, ids: Sequence[int]) -> Tensor:
        table = self._text.table
        return table[torch.tensor(ids, device=table.device)].float().to(self.device)

    def read(self, prompt: str, whole: bool = True) -> ReadPrompt:
        before, *after = prompt.split(PLACEHOLDER, 1)
        return self._text.read([before, 0, after[0]] if after else [before], whole)

    def encode(self, prompts: Sequence[Prompt], vectors: Vectors = MappingProxyType({})) -> TextCondition:
        own = vectors.get(self._encoder)
        if own is not None and not cast(ReadPrompt, prompts[0]).whole:
            return self._encode(cast(ReadPrompt, prompts[0]), own)
        encoded = [
            self._encode(cast(ReadPrompt, prompt), [own[number]] if own is not None else [])
            for number, prompt in enumerate(prompts)
        ]
        return TextCondition.together(encoded)

    def _encode(self, prompt: ReadPrompt, vectors: Sequence[Tensor]) -> TextCondition:
        context, places = self._text.encode(prompt, [vectors] if vectors else [])
        rows = send(torch.tensor(places * len(context)), self.device) if vectors and places[0] else None
        return TextCondition(context.to(self.device), places=rows)

    def tabulate(self, _prompts: Sequence[Prompt], _n: int) -> PromptTable | None:
        return None

    def resting_weights(self) -> Sequence[Tensor] | None:
        return None

    def gives_up(self, _error: BaseException) -> bool:
        return False

    def free_text(self) -> None:
        """A pipeline's text encoder stays where the user has put it."""

    def encode_images(self, images: Tensor) -> Latents:
        latents = self._images.encode(images)
        return Latents(latents.mean.to(self.device), latents.std.to(self.device))

    def decode_images(self, latents: Tensor) -> Tensor:
        return self._images.decode(latents)

    def decode_with_gradients(self, latents: Tensor) -> Tensor:
        return self._images.decode_with_gradients(latents, self.gradient_checkpointing)

    def predict(self, noisy: Tensor, sigmas: Tensor, condition: TextCondition) -> Tensor:
        dtype, context = self.dtype, condition.context
        with self._kv.at(self._where(noisy, condition)):
            return self._network.predict(noisy.to(dtype), sigmas, context.to(dtype)).float()

    @contextmanager
    def kv_deltas(self, deltas: Mapping[str, Tensor], scope: str = "whole") -> Iterator[None]:
        before, self._scope = self._scope, scope
        try:
            with self._kv.changed([deltas]):
                yield
        finally:
            self._scope = before

    @property
    def _encoder(self) -> str:
        return next(iter(self._text.base.encoders))

    def _where(self, noisy: Tensor, condition: TextCondition) -> Where:
        first = self._network.text_begins(*noisy.shape[-2:])
        if self._scope is None or (condition.places is None and self._scope != "whole"):
            return Where((), first)
        places = condition.context.new_zeros(0) if condition.places is None else condition.places
        return Where([marked(places, condition.context.shape[1], self._scope)], first)


def schedule_of(pipeline: Any) -> FlowSchedule:
    """The noise levels of a training on a pipeline."""
    transformer = BASE_MODELS[family_of(pipeline)].transformer
    assert transformer is not None and transformer.headless is not None
    shift = transformer.headless.shift
    return FlowSchedule(float(pipeline.scheduler.config.shift) if shift is None else shift)
