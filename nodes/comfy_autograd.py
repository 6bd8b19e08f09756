"""What stands between ComfyUI's models and a backward pass, and its cures.

Nodes run under `torch.inference_mode()`, weights that a loader made there cannot be saved for a backward pass, some
forward passes write in place, and some attentions know no gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import comfy.model_management
import torch
from comfy.ldm.modules.attention import attention_pytorch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..idea_core.errors import BaseModelError


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

    Newer ComfyUI streams weights through reused buffers (dynamic VRAM), which would give wrong gradients.
    """
    static = {"disable_dynamic": True}
    with torch.inference_mode(False):
        for options in ({**static, "force_deepcopy": True}, static, {}):
            try:
                clone = patcher.clone(**options)
            except (TypeError, RuntimeError):  # an older ComfyUI, or a loader that dynamic VRAM does not know
                continue
            if not getattr(clone, "is_dynamic", bool)():
                return clone
    raise BaseModelError(
        "a MODEL and CLIP that can be held in memory", "ones with dynamic VRAM", "Start ComfyUI without dynamic VRAM."
    )


def replace_inference_tensors(module: torch.nn.Module) -> None:
    """Swap weights that autograd may not save for bit-identical copies that it may."""
    for part in module.modules():
        for store in (part._parameters, part._buffers):
            for name, tensor in store.items():
                if tensor is not None and _has_no_version(tensor):
                    copy = tensor.detach().clone()
                    is_parameter = store is part._parameters
                    store[name] = torch.nn.Parameter(copy, requires_grad=False) if is_parameter else copy


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
