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
_MPS_OOM = "MPS backend out of memory"  # an error without a class of its own


class Training(Protocol):
    """A training that can do with less memory."""

    micro_batch: int  # images whose gradients are computed together

    @property
    def backbone(self) -> Backbone: ...


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that a device has no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or _MPS_OOM in str(error)


def with_less_memory(training: Training, compute: Callable[[], Result]) -> Result:
    """`compute()`, repeated with less memory each time that memory runs out, while something is left to save.

    First the backbone's gradients are checkpointed, then `training.micro_batch` is halved, from then on.
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
    if not training.backbone.gradient_checkpointing:
        training.backbone.gradient_checkpointing = True
        logger.warning("ID-EA: out of memory; going on with gradient checkpointing.")
    elif training.micro_batch > 1:
        training.micro_batch = (training.micro_batch + 1) // 2
        logger.warning("ID-EA: out of memory; going on with %d photos at a time.", training.micro_batch)
    else:
        return False
    return True
