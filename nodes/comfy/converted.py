"""Weights in the precision that a training computes in, converted once: ComfyUI converts them at each step."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

import comfy.model_management
import torch
from torch import Tensor
from torch.nn import Parameter

from .autograd import is_quantised

logger = logging.getLogger(__name__)

LEFT = 2  # memory is wanted for so many times what the conversion takes


class ConvertedWeights:
    """Converted copies that stand in for a model's own weights until `restore`.

    Only layers that convert their weights themselves get them, so the numbers are the same. Weights with patches that
    act at each step, and quantised ones, stay.
    """

    def __init__(self) -> None:
        self._stored: dict[tuple[torch.nn.Module, str], tuple[Parameter, Parameter]] = {}  # copy, own weight
        self._told = False

    def convert(self, models: Mapping[torch.nn.Module, torch.dtype], device: torch.device) -> None:
        """Convert the weights of models to the precision that each computes in, if all of that fits into memory."""
        found = {
            (part, name): (weight, dtype)
            for model, dtype in models.items()
            for part, name, weight in _converting(model)
            if weight.dtype != dtype
        }
        needed = sum(weight.numel() * dtype.itemsize for weight, dtype in found.values())
        fits = LEFT * needed <= comfy.model_management.get_free_memory(device)
        if found and not self._told:
            how = "once" if fits else "at each step, since memory is short"
            logger.info("ID-EA: weights of %d MB are converted %s.", needed // 2**20, how)
            self._told = True
        for (part, name), (weight, dtype) in found.items() if fits else ():
            copy = Parameter(weight.detach().to(dtype), requires_grad=False)
            self._stored[part, name] = copy, weight
            part._parameters[name] = copy

    def restore(self) -> None:
        """Put the models' own weights back where ComfyUI has not done so already."""
        for (part, name), (copy, weight) in self._stored.items():
            if part._parameters[name] is copy:
                weight.data = weight.data.to(copy.device)  # ComfyUI may have moved the copy
                part._parameters[name] = weight
        self._stored.clear()


def _converting(model: torch.nn.Module) -> Iterator[tuple[torch.nn.Module, str, Parameter]]:
    """Layers that convert their weights to the precision of their input, with each such weight and its name.

    Embeddings look up first, and convert the rows alone.
    """
    for part in model.modules():
        if not getattr(part, "comfy_cast_weights", False) or isinstance(part, torch.nn.Embedding):
            continue
        for name in ("weight", "bias"):
            weight = part._parameters.get(name)
            if _is_plain(weight) and not getattr(part, f"{name}_function", ()):
                yield part, name, weight


def _is_plain(weight: Tensor | None) -> bool:
    kinds = (torch.float32, torch.float16, torch.bfloat16)
    return weight is not None and type(weight) is Parameter and weight.dtype in kinds and not is_quantised(weight)
