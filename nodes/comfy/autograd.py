"""What stands between ComfyUI's models and a backward pass, and its cures.

Nodes run under `torch.inference_mode()`, weights that a loader made there cannot be saved for a backward pass, some
forward passes write in place, and some attentions know no gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import comfy.model_management
import torch
from comfy.ldm.modules.attention import BasicTransformerBlock, attention_pytorch
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from ...idea_core.errors import BaseModelError


@contextmanager
def gradients_allowed() -> Iterator[None]:
    """Leave the inference mode that ComfyUI runs nodes in; newer versions are told that this is training."""
    management = comfy.model_management
    flag = getattr(management, "in_training", None)
    with torch.inference_mode(False), torch.enable_grad():
        try:
            if flag is not None:
                management.in_training = True
            yield
        finally:
            if flag is not None:
                management.in_training = flag


def trainable_clone(patcher):
    """A clone whose weights stay put.

    Newer ComfyUI streams weights through reused buffers (dynamic VRAM), which would give wrong gradients. There the
    clone has weights of its own, read from the checkpoint again. Elsewhere all clones share theirs.

    Raises:
        BaseModelError: the weights are streamed, and the node that loaded them did not say how to load them again.
    """
    with torch.inference_mode(False):
        if not getattr(patcher, "is_dynamic", bool)():
            return patcher.clone()
        if patcher.cached_patcher_init is None:
            raise BaseModelError(
                "a MODEL and CLIP that can be held in memory",
                "ones whose weights are streamed, from a node that cannot load them again",
                "Load them with ComfyUI's own loaders, or start ComfyUI with --disable-dynamic-vram.",
            )
        return patcher.clone(disable_dynamic=True)


class GradientWeights:
    """Weights that autograd may save for a backward pass, in place of those that it may not.

    Plain tensors that a loader made in inference mode are swapped for good, for bit-identical copies. Quantised ones
    are swapped for what they stand for, in the precision that the model computes in, until `restore`.
    """

    def __init__(self):
        self._plain: dict[torch.nn.Module, tuple[torch.nn.Parameter, Tensor]] = {}  # module → plain, quantised weight

    def swap_in(self, model: torch.nn.Module) -> None:
        for part in model.modules():
            for store in (part._parameters, part._buffers):
                for name, tensor in store.items():
                    if type(tensor) in (Tensor, torch.nn.Parameter) and _has_no_version(tensor):
                        copied = tensor.detach().clone()
                        is_parameter = store is part._parameters
                        store[name] = torch.nn.Parameter(copied, requires_grad=False) if is_parameter else copied
            weight = part._parameters.get("weight")
            if is_quantised(weight):
                plain = torch.nn.Parameter(weight.dequantize().clone(), requires_grad=False)
                self._plain[part] = plain, weight
                part._parameters["weight"] = plain
                part.comfy_force_cast_weights = True  # else ComfyUI's layer quantises what it is given

    def restore(self) -> None:
        """Put the quantised weights back, but for those that ComfyUI has put back itself."""
        for part, (plain, weight) in self._plain.items():
            part.comfy_force_cast_weights = False
            if part._parameters["weight"] is plain:
                part._parameters["weight"] = weight
        self._plain.clear()


@contextmanager
def recomputed(unet: torch.nn.Module) -> Iterator[None]:
    """While open, the UNet's blocks compute again in the backward pass what they would have to keep."""
    blocks = [part for part in unet.modules() if isinstance(part, (ResBlock, BasicTransformerBlock))]
    before = [vars(block).get("forward") for block in blocks]  # of another pack's own
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
    try:
        yield
    finally:
        for block, forward in zip(blocks, before):
            del block.forward
            if forward is not None:
                block.forward = forward


def is_quantised(weight: Tensor | None) -> bool:
    """Whether a weight is one of ComfyUI's own quantised ones, such as scaled fp8."""
    return hasattr(weight, "_qdata")


def _has_no_version(tensor: Tensor) -> bool:
    """Whether the tensor was made in inference mode; `is_inference()` forgets it after a `.to()`."""
    try:
        return tensor._version is None
    except RuntimeError:
        return True


def differentiable_attention(_chosen, *args, **kwargs) -> Tensor:
    """PyTorch's attention in place of ComfyUI's choice; its memory-saving ones are not safe for autograd."""
    return attention_pytorch(*args, **kwargs)


class CopiedNormInputs(TorchFunctionMode):
    """CLIP's layers add in place to what their layer norms saved for the backward pass; those save a copy here."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.nn.functional.layer_norm:
            args = (args[0].clone(), *args[1:])
        return function(*args, **(kwargs or {}))
