"""Faster arithmetic of GPUs, for the time of a training."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from inspect import signature

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..errors import first_line

logger = logging.getLogger(__name__)

_ATTENTION = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


class TrainingArithmetic:
    """While open, CUDA computes the products of text encoders and Adapter in TF32, and tries cuDNN's attention first.

    A network in single precision keeps it everywhere: its user wants it so. Other devices compute as always.

    Args:
        dtype: of the network.
        tf32, cudnn: whether each of the two.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, tf32: bool = True, cudnn: bool = True):
        self._tf32 = tf32 and device.type == "cuda" and dtype != torch.float32
        self._cudnn = cudnn and device.type == "cuda" and "set_priority" in signature(sdpa_kernel).parameters
        self._settings, self._attention = ExitStack(), ExitStack()

    def __enter__(self) -> TrainingArithmetic:
        before = _matmul_precision() if self._tf32 else None
        if before is not None:
            self._settings.callback(torch.set_float32_matmul_precision, before)
            torch.set_float32_matmul_precision("high")
        if self._cudnn:  # not in older PyTorch
            self._settings.enter_context(self._attention)
            self._attention.enter_context(sdpa_kernel(_ATTENTION, set_priority=True))
        return self

    def __exit__(self, *_error: object) -> None:
        self._settings.close()

    def gives_up(self, error: BaseException) -> bool:
        """After an error of cuDNN: leave attention to PyTorch's own order. False: it is none, or is left already."""
        if not (self._cudnn and isinstance(error, RuntimeError) and "cudnn" in str(error).lower()):
            return False
        self._cudnn = False
        self._attention.close()
        logger.info("ID-EA: attention is computed without cuDNN first. %s", first_line(error))
        return True


def _matmul_precision() -> str | None:
    """PyTorch's setting; None where somebody has made it in the newer way, which does not mix with this one."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None
