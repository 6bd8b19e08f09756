"""ComfyUI's CLIP, UNet and VAE as the trainer's `Backbone`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from types import MappingProxyType
from typing import cast

import comfy.model_management
import comfy.utils
import torch
from comfy.ldm.modules.attention import BasicTransformerBlock
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
from torch import Tensor

from ...idea_core.diffusion.backbone import Prompt, PromptTable, TextCondition, Vectors
from ...idea_core.families import BASE_MODELS
from ...idea_core.method.kv import kv_added
from ...idea_core.text.tokenized import SplitPrompt, fill, places_of, too_long
from ...idea_core.training.recorded import recorder_for
from ...idea_core.training.repeated import RepeatedPasses
from .autograd import CopiedNormInputs, differentiable_attention, recomputed, resting_weights
from .kept_prompts import KeptPrompts
from .loaded import LoadedModels
from .models import cross_attention_shapes, require_pair, schedule_of
from .transformer import TransformerBackbone

_BLOCKS = (ResBlock, BasicTransformerBlock)  # computed again in the backward pass


def backbone_of(model, clip, vae, precision: str = "auto", gradient_checkpointing: bool = False) -> LoadedModels:
    """The backbone of a MODEL's family; arguments and errors as in `LoadedModels`."""
    base = BASE_MODELS[require_pair(model, clip, trainable=True)]
    kind = ComfyBackbone if base.transformer is None else TransformerBackbone
    return kind(model, clip, vae, precision, gradient_checkpointing)


class ComfyBackbone(LoadedModels):
    """The backbone of Stable Diffusion: CLIP's chunks, a UNet with cross attention."""

    kv_scopes: Sequence[str] = ("whole",)  # cross attention sees text alone

    def __init__(self, model, clip, vae, precision: str = "auto", gradient_checkpointing: bool = False):
        super().__init__(model, clip, vae, precision, gradient_checkpointing)
        self._with_vector = BASE_MODELS[self.base_model].vector_width is not None
        self.schedule, self._timesteps = schedule_of(model, self.device)
        self.kv_shapes = cross_attention_shapes(self._patcher.model)
        self._sizes: dict[tuple[int, ...], Tensor] = {}
        self._kv_layers = {name: comfy.utils.get_attr(self._patcher.model, name) for name in self.kv_shapes}
        self._deltas: Mapping[str, Tensor] = {}
        recorder = None if self.scales_loss else recorder_for(self.device)
        if recorder is not None:
            self.recordings = RepeatedPasses(recorder)
            if torch.cuda.get_allocator_backend() != "native":  # how it keeps recordings' memory apart was not tried
                self.recordings.stop("ComfyUI uses cudaMallocAsync (--disable-cuda-malloc turns it off)")

    def _precisions(self) -> Mapping[torch.nn.Module, torch.dtype]:
        return {self._network: self._dtype, **dict.fromkeys(self._text.models.values(), torch.float32)}

    def read(self, prompt: str, _whole: bool = True) -> Prompt:
        return SplitPrompt.read(self.tokenize, prompt)

    def encode(self, prompts: Sequence[Prompt], vectors: Vectors = MappingProxyType({})) -> TextCondition:
        self._load()
        split = cast(Sequence[SplitPrompt], prompts)
        rows = self._padded(fill(split, vectors))
        condition = self._joined([self._encode_with(key, rows[key]) for key in self._text.models])
        return condition._replace(places=places_of(split, vectors, self.device))

    def tabulate(self, prompts: Sequence[Prompt], n: int) -> PromptTable:
        self._load()
        marks = {
            key: [torch.zeros(n, width)] * len(prompts) for key, width in BASE_MODELS[self.base_model].encoders.items()
        }
        rows = self._padded(fill(cast(Sequence[SplitPrompt], prompts), marks))
        device = self._text_patcher.load_device
        return KeptPrompts(self._text.models, rows, device, self._encode_known, self._joined)

    def _padded(self, prompts: Mapping[str, Sequence[Sequence[int | Tensor]]]) -> dict[str, list]:
        """Text encoder → prompts with their start, end and padding tokens."""
        rows: dict[str, list] = {key: [] for key in prompts}
        for key, own in prompts.items():
            special = self._text.models[key].special_tokens
            for prompt in own:
                padding = self.prompt_length - len(prompt)
                if padding < 0:
                    raise too_long(self.prompt_length, len(prompt))
                rows[key].append([special["start"], *prompt, special["end"], *[special["pad"]] * padding])
        return rows

    def _encode_with(self, encoder: str, rows: Sequence[Sequence[int | Tensor]]) -> tuple[Tensor, Tensor]:
        """Hidden states (B, L, d_enc) and pooled output of one text encoder."""
        with CopiedNormInputs():
            hidden, pooled = self._text.models[encoder](rows)[:2]
        return hidden.to(self.device), pooled.to(self.device)

    def _encode_known(self, encoder: str, count: int) -> tuple[Tensor, Tensor]:
        """`_encode_with` for prompts that the text encoder has tokenized before."""
        self._load()
        return self._encode_with(encoder, [[]] * count)

    def _joined(self, outputs: Sequence[tuple[Tensor, Tensor]]) -> TextCondition:
        hidden, pooled = zip(*outputs)
        return TextCondition(torch.cat(hidden, dim=-1), pooled[-1] if self._with_vector else None)

    def predict(self, noisy: Tensor, timesteps: Tensor, condition: TextCondition) -> Tensor:
        comfy.model_management.throw_exception_if_processing_interrupted()
        self._load()
        vector = None if condition.pooled is None else self._vector(condition.pooled, noisy).to(self._dtype)
        inputs = noisy.to(self._dtype), self._timesteps[timesteps], condition.context.to(self._dtype), vector
        recompute = self.gradient_checkpointing and torch.is_grad_enabled()
        if self.recordings is None or recompute or not torch.is_grad_enabled():
            with recomputed(self._network, _BLOCKS) if recompute else nullcontext():
                return self._computed(*inputs)
        trained = [weight for weight in self._deltas.values() if weight.requires_grad]
        resting = partial(resting_weights, self._network, self.device)
        return self.recordings(self._computed, inputs, trained, resting)

    def _computed(self, noisy: Tensor, timesteps: Tensor, context: Tensor, vector: Tensor | None) -> Tensor:
        options = {"optimized_attention_override": differentiable_attention}
        return self._network(noisy, timesteps, context=context, y=vector, transformer_options=options).float()

    def _vector(self, pooled: Tensor, noisy: Tensor) -> Tensor:
        """Pooled text and image size for the UNet of Stable Diffusion XL, as ComfyUI computes them."""
        size = tuple(side * self._vae.downscale_ratio for side in noisy.shape[-2:])
        if size not in self._sizes:  # ComfyUI computes them on the CPU, and the device would wait
            zeros = torch.zeros(1, pooled.shape[1])
            vector = self._patcher.model.encode_adm(pooled_output=zeros, height=size[0], width=size[1])
            self._sizes[size] = vector[:, pooled.shape[1] :].to(noisy.device)
        return torch.cat([pooled, self._sizes[size].to(pooled).expand(len(pooled), -1)], dim=1)

    @contextmanager
    def kv_deltas(self, deltas: Mapping[str, Tensor], _scope: str = "whole") -> Iterator[None]:
        with kv_added(self._kv_layers, deltas):
            before, self._deltas = self._deltas, deltas
            try:
                yield
            finally:
                self._deltas = before
