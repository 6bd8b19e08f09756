"""Obstacles to a backward pass in ComfyUI's models, and their remedies.

Nodes run under `torch.inference_mode()`, and autograd cannot save weights that were loaded there. Some forward passes
write in place, and some attention functions have no gradients.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from functools import partial
from typing import TypeGuard

import comfy.model_management
import torch
from comfy.ldm.modules.attention import attention_pytorch
from torch import Tensor
from torch.nn import Parameter
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from ...idea_core.errors import BaseModelError

_CHECKPOINT = {"use_reentrant": False, "preserve_rng_state": False}
_NORMS = "LayerNorm"  # end of the names of classes that save their input; blocks then add to it in place


@contextmanager
def gradients_allowed() -> Iterator[None]:
    """Leave the inference mode of ComfyUI's nodes, and set the training flag of newer versions."""
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
    """A clone whose weights stay in place.

    Newer ComfyUI streams weights through reused buffers (dynamic VRAM), which would give wrong gradients. There the
    clone reads weights of its own from the checkpoint. Elsewhere all clones share their weights.

    Raises:
        BaseModelError: the weights are streamed, and their loader cannot load them again.
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
    """Replace weights that autograd cannot save for a backward pass.

    Bit-identical copies replace plain tensors from inference mode for good. Dequantised weights, in the precision that
    the model computes in, replace quantised ones until `restore`.
    """

    def __init__(self):
        self._plain: dict[torch.nn.Module, tuple[Parameter, Parameter]] = {}  # module → plain, quantised weight

    def swap_in(self, model: torch.nn.Module) -> None:
        for part in model.modules():
            for name, weight in part._parameters.items():
                if _from_inference(weight):
                    part._parameters[name] = Parameter(weight.detach().clone(), requires_grad=False)
            for name, buffer in part._buffers.items():
                if _from_inference(buffer):
                    part._buffers[name] = buffer.detach().clone()
            weight = part._parameters.get("weight")
            if weight is not None and is_quantised(weight):
                plain = Parameter(weight.dequantize().clone(), requires_grad=False)
                self._plain[part] = plain, weight
                part._parameters["weight"] = plain
        for part in self._plain:  # ComfyUI takes this back when it loads the model again
            part.comfy_force_cast_weights = True  # else its layer quantises the input

    def restore(self) -> None:
        """Put the quantised weights back, unless ComfyUI has already done so."""
        for part, (plain, weight) in self._plain.items():
            part.comfy_force_cast_weights = False
            if part._parameters["weight"] is plain:
                part._parameters["weight"] = weight
        self._plain.clear()


@contextmanager
def recomputed(network: torch.nn.Module, kinds: tuple[type, ...]) -> Iterator[None]:
    """While open, blocks of these classes recompute their activations in the backward pass."""
    blocks = [part for part in network.modules() if isinstance(part, kinds)]
    with ExitStack() as stack:
        for block in blocks:
            before = vars(block).get("forward")  # another pack's own, if any
            block.forward = partial(checkpoint, block.forward, **_CHECKPOINT)
            stack.callback(_put_back, block, before)
        yield


@contextmanager
def recomputed_on_copies(module: torch.nn.Module, kinds: Sequence[str]) -> Iterator[None]:
    """While open, blocks whose classes have these names are computed again in the backward pass.

    Transformers' blocks write into their own inputs. They get copies each time: computed again from what they have
    changed, they would silently give other gradients. Layer norms in them save copies, too, and what they write to
    `out` is a new tensor. All that holds in whichever thread the backward pass runs, which must end before this does.
    """
    with ExitStack() as stack:
        for part in module.modules():
            if type(part).__name__ in kinds:
                before = vars(part).get("forward")  # another pack's own, if any
                part.forward = partial(_twice, part.forward)
                stack.callback(_put_back, part, before)
            elif type(part).__name__.endswith(_NORMS):
                stack.callback(part.register_forward_pre_hook(_copy_input).remove)
        yield


def _twice(forward, *args, **kwargs):
    """The forward pass, for the backward pass to compute again: with the context variables of now."""
    run = partial(copy_context().run, _on_copies, forward)
    return checkpoint(run, *args, **kwargs, **_CHECKPOINT)


def _on_copies(forward, *args, **kwargs):
    def copied(value):  # also what needs no gradient: it may, once a block has written into it
        return value.clone() if isinstance(value, Tensor) else value

    with _WithoutOut():
        return forward(*map(copied, args), **{key: copied(value) for key, value in kwargs.items()})


def _copy_input(_norm, inputs: tuple) -> tuple:
    return (inputs[0].clone(), *inputs[1:]) if torch.is_grad_enabled() else inputs


def _put_back(part: torch.nn.Module, forward) -> None:
    del part.forward
    if forward is not None:
        part.forward = forward


class _WithoutOut(TorchFunctionMode):
    """Leaves `out=` out where gradients are wanted: language models end blocks with a sum into their own input."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if kwargs.get("out") is not None and torch.is_grad_enabled():
            kwargs = {key: value for key, value in kwargs.items() if key != "out"}
        return function(*args, **kwargs)


def resting_weights(network: torch.nn.Module, device: torch.device) -> list[Tensor] | None:
    """All weights of a network as it computes with them; None: some are elsewhere, or made anew at each call."""
    weights: list[Tensor] = []
    for part in network.modules():
        own = vars(part)
        if own.get("weight_function") or own.get("bias_function"):  # ComfyUI's patches at each call
            return None
        weights += [one for kind in ("_parameters", "_buffers") for one in own[kind].values() if one is not None]
    plain = all(type(one) in (Tensor, Parameter) and one.device == device for one in weights)
    return weights if plain else None


def is_quantised(weight: Tensor | None) -> bool:
    """Whether ComfyUI itself has quantised a weight, such as to scaled fp8."""
    return hasattr(weight, "_qdata")


def _from_inference(tensor: Tensor | None) -> TypeGuard[Tensor]:
    """Whether a plain tensor was made in inference mode; after a `.to()`, `is_inference()` no longer tells."""
    if tensor is None or type(tensor) not in (Tensor, Parameter):
        return False
    try:
        return tensor._version is None
    except RuntimeError:
        return True


def differentiable_attention(_chosen, *args, **kwargs) -> Tensor:
    """PyTorch's attention in place of ComfyUI's choice: its memory-saving ones are not safe for autograd."""
    return attention_pytorch(*args, **kwargs)


class CopiedNormInputs(TorchFunctionMode):
    """Layer norms save a copy of their input here: CLIP's layers then add to that input in place."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.nn.functional.layer_norm:
            args = (args[0].clone(), *args[1:])
        return function(*args, **(kwargs or {}))
