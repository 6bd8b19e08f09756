"""The device's memory: small tensors on their way to it, and going on with less of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from ..errors import IdeaError
from .backbone import Backbone

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
_SHARE = 0.5  # of free memory; decoding and other programs need the rest
_MPS_OOM = "MPS backend out of memory"  # an error without a class of its own


class Training(Protocol):
    """A training that can do with less memory."""

    micro_batch: int  # images whose gradients are computed together

    @property
    def backbone(self) -> Backbone: ...

    def release(self, why: str = "", /) -> bool:
        """Give back memory that only makes steps faster, for a reason; False: there is none."""


class Memory(Protocol):
    """The memory of a device that tells of it."""

    def free(self) -> int:
        """Bytes that are free."""

    def used_by(self, compute: Callable[[], Result]) -> tuple[Result, int]:
        """The result of `compute`, and the bytes that it needed at most at one time."""


class CudaMemory:
    """The memory of a CUDA device, as PyTorch's allocator has it."""

    def __init__(self, device: torch.device):
        self._device = device

    def free(self) -> int:
        free, _ = torch.cuda.mem_get_info(self._device)
        return free + torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)

    def used_by(self, compute: Callable[[], Result]) -> tuple[Result, int]:
        before = torch.cuda.memory_allocated(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        result = compute()
        return result, torch.cuda.max_memory_allocated(self._device) - before


def memory_of(device: torch.device) -> Memory | None:
    """The memory of a device; None: it does not tell, or more work at once makes it no faster."""
    return CudaMemory(device) if device.type == "cuda" else None


def more_at_once(count: int, used: int, free: int, most: int) -> int:
    """How many images to compute together after `count` of them: at most twice as many, in half of the free memory.

    Args:
        used: bytes that they needed.
        free: bytes that are free without them.
        most: images from which more give no speed.
    """
    fit = int(_SHARE * free * count / max(used, 1))
    return max(count, min(fit, 2 * count, most))


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that a device has no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or _MPS_OOM in str(error)


def with_less_memory(training: Training, compute: Callable[[], Result]) -> Result:
    """`compute()`, repeated with less memory each time that memory runs out, while something is left to save.

    First goes what only makes steps faster. Then the backbone's gradients are checkpointed, and at last
    `training.micro_batch` is halved, all from then on.
    """
    while True:
        try:
            return compute()
        except RuntimeError as error:
            if not is_out_of_memory(error) or not _save_memory(training):
                raise
        empty_cache()


@contextmanager
def out_of_memory_as(error: IdeaError) -> Iterator[None]:
    """Re-raise out-of-memory as `error`."""
    try:
        yield
    except RuntimeError as own:
        if not is_out_of_memory(own):
            raise
        raise error from own


def empty_cache() -> None:
    """Return memory that is not in use to the device."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """The same tensor on the device, without waiting for what the device is still doing."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()  # only pinned memory copies asynchronously
    return tensor.to(device, non_blocking=True)


def _save_memory(training: Training) -> bool:
    """Use less memory from now on; False if nothing more can be saved."""
    if training.release("memory runs out"):
        logger.info("ID-EA: out of memory; going on without recorded steps for now.")
    elif not training.backbone.gradient_checkpointing:
        training.backbone.gradient_checkpointing = True
        logger.warning("ID-EA: out of memory; going on with gradient checkpointing.")
    elif training.micro_batch > 1:
        training.micro_batch = (training.micro_batch + 1) // 2
        logger.warning("ID-EA: out of memory; going on with %d photos at a time.", training.micro_batch)
    else:
        return False
    return True
