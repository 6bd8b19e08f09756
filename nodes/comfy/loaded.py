"""A training's own MODEL, CLIP and VAE in ComfyUI's memory management: what all families of base models share.

MODEL, CLIP and VAE compute the same after training as before. Weights from inference mode stay bit-identical copies
(`GradientWeights`). Models stay loaded until ComfyUI needs the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ...idea_core.diffusion.backbone import PRECISIONS, Latents, Prompt, PromptTable, TokenIds
from ...idea_core.errors import BaseModelError
from ...idea_core.families import BASE_MODELS
from ...idea_core.training.repeated import RepeatedPasses
from .autograd import GradientWeights, gradients_allowed, trainable_clone
from .converted import ConvertedWeights
from .models import TextEncoders, best_dtype, layer_of, require_pair

ALL_MEMORY = 1e20  # bytes: all other models make room for the training


class LoadedModels:
    """A frozen MODEL, CLIP and VAE, open for gradients inside `with`.

    Args:
        precision: of the network, one of `PRECISION_CHOICES`. "auto" is half precision on GPUs, bfloat16 where they
            have it. Trained weights are always in single precision.
        gradient_checkpointing: save memory by a second forward pass of the network.

    Raises:
        BaseModelError: the MODEL is of no supported family, or the CLIP is another model's.
    """

    recordings: RepeatedPasses | None = None

    def __init__(self, model, clip, vae, precision: str = "auto", gradient_checkpointing: bool = False):
        self.base_model = require_pair(model, clip, trainable=True)
        self.prompt_length = BASE_MODELS[self.base_model].prompt_length
        self.clip_layer = layer_of(clip, self.base_model)
        self._vae = vae
        self._patcher = trainable_clone(model)
        self._text_patcher = trainable_clone(clip.patcher)
        self._vae_patcher: ModelPatcher | None = None  # if gradients pass through the VAE
        self._text = TextEncoders(self.base_model, self._text_patcher.model, clip.tokenizer)
        self._network = self._patcher.model.diffusion_model
        self.device = self._patcher.load_device
        self._dtype = PRECISIONS.get(precision) or best_dtype(model, self.device)
        self._weights, self._converted = GradientWeights(), ConvertedWeights()
        self._checkpointing = gradient_checkpointing
        self._loaded = self._pushed_out = False
        self._exit = ExitStack()

    def __enter__(self):
        self._exit.callback(self._unload)
        self._exit.enter_context(gradients_allowed())
        self._exit.callback(self._text.reset)
        return self

    def __exit__(self, _kind, error, _traceback) -> None:
        self._exit.close()
        if isinstance(error, RuntimeError) and "nference tensor" in str(error):
            kinds = {type(weight).__name__ for weight in self._network.parameters()} - {"Parameter"}
            raise BaseModelError(
                "a MODEL whose weights allow gradients",
                ", ".join(sorted(kinds)) or "one that was loaded without them",
                "Load the checkpoint itself, or a GGUF or fp8 one by the loader that it is made for.",
            ) from error

    @property
    def dtype(self) -> torch.dtype:
        return self._dtype

    @property
    def gradient_checkpointing(self) -> bool:
        return self._checkpointing

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, on: bool) -> None:
        self._checkpointing = on
        if on:  # memory is short
            self._converted.restore()

    @property
    def scales_loss(self) -> bool:
        return self._dtype == torch.float16

    def tokenize(self, text: str) -> TokenIds:
        return self._text.ids(text)

    def embed_tokens(self, encoder: str, ids: Sequence[int]) -> Tensor:
        self._load()
        table = self._text.models[encoder].transformer.get_input_embeddings()
        return table(torch.tensor(ids, device=self._text_patcher.load_device), out_dtype=torch.float32)

    def tabulate(self, _prompts: Sequence[Prompt], _n: int) -> PromptTable | None:
        """None: prompts are read anew each time, unless a family's text encoders allow more."""
        return None

    def resting_weights(self) -> Sequence[Tensor] | None:
        """None: ComfyUI may move weights between two steps."""
        return None

    def gives_up(self, _error: BaseException) -> bool:
        return False

    def free_text(self) -> None:
        """Text encoders stay where they are, unless a family's are large."""

    def encode_images(self, images: Tensor) -> Latents:
        scaled = self._patcher.model.process_latent_in
        parts = []
        for image in images:
            comfy.model_management.throw_exception_if_processing_interrupted()
            with self.aside(), torch.inference_mode(), _recorded_std(self._vae) as std_of:
                mean = self._vae.encode(image[None])
                std = std_of(mean)
                parts.append((scaled(mean), scaled(std) - scaled(torch.zeros_like(std))))
        return Latents(*(torch.cat(part).to(self.device, torch.float32) for part in zip(*parts)))

    def decode_images(self, latents: Tensor) -> Tensor:
        with self.aside(), torch.inference_mode():
            images = self._vae.decode(self._patcher.model.process_latent_out(latents))
        return images.float().clamp(0, 1).cpu().clone()

    def decode_with_gradients(self, latents: Tensor) -> Tensor:
        comfy.model_management.throw_exception_if_processing_interrupted()
        if self._vae_patcher is None:
            self._vae_patcher = trainable_clone(self._vae.patcher)
            self._pushed_out = self._loaded
        self._load()
        vae, latents = self._vae_patcher, self._patcher.model.process_latent_out(latents)
        decode = vae.model.decode
        if self.gradient_checkpointing:
            decode = partial(checkpoint, decode, use_reentrant=False, preserve_rng_state=False)
        pixels = [decode(part) for part in latents.to(vae.load_device, self._vae.vae_dtype).split(1)]
        return (torch.cat(pixels).float().movedim(1, -1) / 2 + 0.5).clamp(0, 1).to(self.device)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """While open, other models may push network and text encoder out of memory; these are loaded again later."""
        try:
            yield
        finally:
            self._pushed_out = self._loaded

    def _load(self) -> None:
        """Load network and text encoder once, and again after other models had the memory."""
        if self._pushed_out:
            self._load_whole()
            self._pushed_out = False
        if self._loaded:
            return
        comfy.model_management.throw_exception_if_processing_interrupted()
        self._loaded = True
        if self._patcher.model_dtype() != self._dtype:
            self._patcher.set_model_compute_dtype(self._dtype)
        self._load_whole()
        self._text.prepare(self.clip_layer, self._text_patcher.load_device)

    def _load_whole(self) -> None:
        """Load the models that gradients pass through as a whole, with weights that autograd may save."""
        patchers = [*self._needed(), *([self._vae_patcher] if self._vae_patcher else [])]
        with torch.inference_mode():
            comfy.model_management.load_models_gpu(patchers, memory_required=ALL_MEMORY, force_full_load=True)
        for patcher in patchers:
            self._weights.swap_in(patcher.model)
        if not self.gradient_checkpointing:
            self._converted.convert(self._precisions(), self.device)

    def _precisions(self) -> Mapping[torch.nn.Module, torch.dtype]:
        """Modules that compute all in one precision, and which."""
        return {}

    def _needed(self) -> list[ModelPatcher]:
        """The models that the training uses at present, the VAE aside."""
        return [self._patcher, self._text_patcher]

    def _unload(self) -> None:
        """Restore the modules: changes of the training outlive the patcher otherwise."""
        if not self._loaded:
            return
        if self.recordings is not None:
            self.recordings.release()
        self._converted.restore()
        self._weights.restore()
        self._patcher.detach()
        for module in self._patcher.model.modules():
            if hasattr(module, "prev_comfy_cast_weights"):
                vars(module).pop("comfy_cast_weights", None)  # the class attribute applies again
                del module.prev_comfy_cast_weights


@contextmanager
def _recorded_std(vae) -> Iterator[Callable[[Tensor], Tensor]]:
    """While open, a function gives the standard deviation for a mean that the VAE has just encoded.

    ComfyUI's VAE gives only the mean. Where it encodes in tiles, or has no posterior, the standard deviation is 0.
    """
    moments: list[Tensor] = []
    part = getattr(vae.first_stage_model, "regularization", None)
    hook = None if part is None else part.register_forward_pre_hook(lambda _part, inputs: moments.append(inputs[0]))

    def std_of(mean: Tensor) -> Tensor:
        shapes = [(len(one), one.shape[1] // 2, *one.shape[2:]) for one in moments]
        if shapes != [tuple(mean.shape)]:
            return torch.zeros_like(mean)
        return moments[0].chunk(2, dim=1)[1].to(mean).clamp(-30, 20).div(2).exp()

    try:
        yield std_of
    finally:
        if hook is not None:
            hook.remove()
