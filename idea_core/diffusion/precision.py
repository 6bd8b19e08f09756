"""Faster arithmetic of GPUs, for the time of a training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from inspect import signature

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

_ATTENTION = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


@contextmanager
def training_arithmetic(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """While open, CUDA computes the products of text encoders and Adapter in TF32, and tries cuDNN's attention first.

    A network in single precision keeps it everywhere: its user wants it so. Other devices compute as always.

    Args:
        dtype: of the network.
    """
    with ExitStack() as stack:
        if device.type == "cuda":
            before = None if dtype == torch.float32 else _matmul_precision()
            if before is not None:
                stack.callback(torch.set_float32_matmul_precision, before)
                torch.set_float32_matmul_precision("high")
            if "set_priority" in signature(sdpa_kernel).parameters:  # of newer PyTorch
                stack.enter_context(sdpa_kernel(_ATTENTION, set_priority=True))
        yield


def _matmul_precision() -> str | None:
    """PyTorch's setting; None where somebody has made it in the newer way, which does not mix with this one."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None
