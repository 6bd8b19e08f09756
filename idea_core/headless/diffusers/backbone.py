"""A diffusers pipeline as the trainer's `Backbone`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, cast

import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn

from ...diffusion.backbone import Latents, Prompt, PromptTable, Recordings, TextCondition, TokenIds, Vectors
from ...diffusion.schedule import DiscreteSchedule, Schedule
from ...families import BASE_MODELS
from ...families.ldm_names import KV_LAYERS, to_ldm
from ...method.kv import kv_added
from ...text.tokenized import SplitPrompt, fill, places_of
from .compiled import CompiledNetwork
from .images import PlainScale, VaeImages
from .schedule import prediction_of
from .text import TextEncoders, text_encoders_of

_MOVERS = {"_hf_hook", "_diffusers_hook"}  # of accelerate and diffusers, which offload or cast weights


class DiffusersBackbone:
    """A frozen Stable Diffusion 1.x, 2.x or XL pipeline through which gradients pass.

    Args:
        pipeline: `StableDiffusionPipeline` or `StableDiffusionXLPipeline`.
        clip_layer: text encoder layer, counted from the end; None: the model's own.
        gradient_checkpointing: save memory by a second forward pass of the UNet.

    Raises:
        BaseModelError: another kind of pipeline.
    """

    def __init__(self, pipeline: Any, clip_layer: int | None = None, gradient_checkpointing: bool = False):
        self._text = TextEncoders(pipeline, clip_layer)
        self._unet, self._vae = pipeline.unet, pipeline.vae
        self._network: Callable[..., Any] = self._unet
        scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
        alphas = scheduler.alphas_cumprod.to(self._unet.device)
        self.schedule: Schedule = DiscreteSchedule(alphas, prediction_of(scheduler))
        self.base_model, self.clip_layer = self._text.family, clip_layer
        self.prompt_length = self._text.length - 2
        self._images = VaeImages(self._vae, PlainScale(self._vae))
        for module in (self._unet, self._vae, *text_encoders_of(pipeline)):
            module.requires_grad_(False).eval()
        self.gradient_checkpointing = gradient_checkpointing
        self.kv_scopes: Sequence[str] = ("whole",)  # the layers see text alone
        self.recordings: Recordings | None = None  # a whole step can be recorded
        self._sizes: dict[tuple[int, int], Tensor] = {}
        self._layers = cross_attention_layers(self._unet)
        self.kv_shapes: Mapping[str, tuple[int, int]] = {
            name: (layer.weight.shape[0], layer.weight.shape[1]) for name, layer in self._layers.items()
        }

    def compile(self, backend: str | Callable[..., Any] = "inductor") -> None:
        """Compile the UNet from now on. It pays in long trainings alone: the first steps take minutes."""
        self._network = CompiledNetwork(self._unet, backend)

    @property
    def device(self) -> torch.device:
        return self._unet.device

    @property
    def dtype(self) -> torch.dtype:
        return self._unet.dtype

    @property
    def gradient_checkpointing(self) -> bool:
        return self._unet.is_gradient_checkpointing

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, on: bool) -> None:
        if on:
            self._unet.enable_gradient_checkpointing()
        else:
            self._unet.disable_gradient_checkpointing()

    @property
    def scales_loss(self) -> bool:
        return self.dtype == torch.float16

    def tokenize(self, text: str) -> TokenIds:
        return self._text.tokenize(text)

    def embed_tokens(self, encoder: str, ids: Sequence[int]) -> Tensor:
        return self._text.embed(encoder, ids)

    def read(self, prompt: str, _whole: bool = True) -> SplitPrompt:
        return SplitPrompt.read(self.tokenize, prompt)

    def encode(self, prompts: Sequence[Prompt], vectors: Vectors = MappingProxyType({})) -> TextCondition:
        prompts = cast(Sequence[SplitPrompt], prompts)
        condition = self._text.encode(fill(prompts, vectors))
        return condition._replace(places=places_of(prompts, vectors, self.device))

    def tabulate(self, prompts: Sequence[Prompt], n: int) -> PromptTable:
        marks = [torch.empty(n, 0)] * len(prompts)
        filled = fill(cast(Sequence[SplitPrompt], prompts), dict.fromkeys(BASE_MODELS[self.base_model].encoders, marks))
        return self._text.tabulate(filled, n)

    def resting_weights(self) -> Sequence[Tensor] | None:
        modules, device = [self._unet, *self._text.models], self.device  # which diffusers looks for in all modules
        if not all(_MOVERS.isdisjoint(vars(part)) for module in modules for part in module.modules()):
            return None
        weights = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
        return weights if all(weight.device == device for weight in weights) else None

    def gives_up(self, error: BaseException) -> bool:
        return isinstance(self._network, CompiledNetwork) and self._network.gives_up(error)

    def free_text(self) -> None:
        """A pipeline's text encoders stay where the user has put them."""

    def encode_images(self, images: Tensor) -> Latents:
        return self._images.encode(images)

    def decode_images(self, latents: Tensor) -> Tensor:
        return self._images.decode(latents)

    def decode_with_gradients(self, latents: Tensor) -> Tensor:
        return self._images.decode_with_gradients(latents, self.gradient_checkpointing)

    def predict(self, noisy: Tensor, timesteps: Tensor, condition: TextCondition) -> Tensor:
        dtype = self.dtype
        added = None if condition.pooled is None else self._size_condition(noisy, condition.pooled.to(dtype))
        context = condition.context.to(dtype)
        output = self._network(noisy.to(dtype), timesteps, encoder_hidden_states=context, added_cond_kwargs=added)
        return output.sample.float()

    @contextmanager
    def kv_deltas(self, deltas: Mapping[str, Tensor], _scope: str = "whole") -> Iterator[None]:
        with kv_added(self._layers, deltas):
            yield

    def _size_condition(self, noisy: Tensor, pooled: Tensor) -> dict[str, Tensor]:
        """SDXL's vector conditioning: pooled text; original size, crop and target size in pixels."""
        height, width = (side * self._images.scale.factor for side in noisy.shape[-2:])
        if (height, width) not in self._sizes:  # made anew, the device would wait for it at each step
            self._sizes[height, width] = torch.tensor([[height, width, 0, 0, height, width]], device=noisy.device)
        sizes = self._sizes[height, width].to(pooled.dtype)
        return {"text_embeds": pooled, "time_ids": sizes.expand(len(noisy), -1)}


def cross_attention_layers(unet: Any) -> dict[str, nn.Linear]:
    """LDM name → module, for each `to_k` and `to_v` of a `UNet2DConditionModel`'s cross attentions."""
    per_block = unet.config.layers_per_block
    named = {name: module for name, module in unet.named_modules() if name.endswith(KV_LAYERS)}
    return {to_ldm(name, per_block): cast(nn.Linear, module) for name, module in named.items()}
