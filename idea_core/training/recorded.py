"""Whole steps as a CUDA graph: the host starts one thing in place of thousands.

A graph repeats work on tensors that stay where they are. What changes from step to step is copied into buffers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache
from typing import Protocol

import torch
from torch import Tensor

from .batches import Batch
from .inputs import Inputs

Step = Callable[[Batch], Tensor]
"""A step with a batch; its loss, a detached scalar on the device."""


class Recorder(Protocol):
    """Records what a device computes.

    Attributes:
        bytes: of memory that the recordings have for themselves.
    """

    bytes: int

    def warming(self) -> AbstractContextManager[None]:
        """While open, work is done as it has to be before it is recorded."""

    def forget(self) -> None:
        """Begin anew: there are no recordings any more."""

    def record(self, compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """A function that repeats `compute` and gives a new tensor with its result.

        Raises:
            RuntimeError: work that cannot be recorded.
        """


class CudaRecorder:
    """CUDA graphs (https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs, whole-network capture).

    All graphs share one pool of memory: each writes what it reads, and its result is copied out at once.
    """

    def __init__(self, device: torch.device):
        self._device, self._side = device, _side_stream(device)
        self.forget()

    def forget(self) -> None:
        self._pool, self.bytes = torch.cuda.graph_pool_handle(), 0

    @contextmanager
    def warming(self) -> Iterator[None]:
        with torch.cuda.device(self._device):
            usual = torch.cuda.current_stream()
            self._side.wait_stream(usual)
            try:
                with torch.cuda.stream(self._side):
                    yield
            finally:  # after a cancel the state is saved, of what has been computed
                usual.wait_stream(self._side)

    def record(self, compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
        with torch.cuda.device(self._device):
            usual, graph = torch.cuda.current_stream(), torch.cuda.CUDAGraph()
            torch.cuda.empty_cache()  # the graphs have memory of their own
            before = torch.cuda.memory_reserved()
            mode = "thread_local"  # other threads may use the device
            try:
                with torch.cuda.graph(graph, pool=self._pool, stream=self._side, capture_error_mode=mode):
                    result = compute()
            except BaseException:
                with suppress(RuntimeError):  # where PyTorch itself has not done so
                    torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), self._pool)
                raise
            finally:
                torch.cuda.set_stream(usual)  # where a capture breaks off, PyTorch leaves the other one
            self.bytes += torch.cuda.memory_reserved() - before

        def replay() -> Tensor:
            graph.replay()
            return result.clone()

        return replay


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """Of warm-ups and captures: what libraries set up, they set up for each stream."""
    return torch.cuda.Stream(device)


def recorder_for(device: torch.device) -> Recorder | None:
    """What records the work of a device; None: nothing does."""
    return CudaRecorder(device) if device.type == "cuda" else None


@contextmanager
def capturable(optimizer: torch.optim.Optimizer, device: torch.device) -> Iterator[None]:
    """While open, PyTorch lets CUDA graphs have the optimiser's step. Where nothing is recorded, it warns of that."""
    before = [group.get("capturable") for group in optimizer.param_groups]
    try:
        for group in optimizer.param_groups if device.type == "cuda" else ():
            group["capturable"] = True
        yield
    finally:
        for group, value in zip(optimizer.param_groups, before):
            group["capturable"] = value


class RecordedStep:
    """A recording of one step, for batches of the same shapes. All tensors that it reads and changes have to stay.

    Args:
        compute: a whole step on the device, from its inputs to changed weights.
        inputs_of: sends a batch to the device.
    """

    def __init__(
        self,
        recorder: Recorder,
        compute: Callable[[Inputs], Tensor],
        inputs_of: Callable[[Batch], Inputs],
        batch: Batch,
    ):
        self._inputs_of = inputs_of
        self._buffers = inputs_of(batch).map(torch.clone)
        self._repeat = recorder.record(lambda: compute(self._buffers))

    def __call__(self, batch: Batch) -> Tensor:
        for buffer, part in zip(self._buffers, self._inputs_of(batch)):
            if buffer is not None and part is not None:
                buffer.copy_(part, non_blocking=True)
        return self._repeat()


def addresses(tensors: Iterable[Tensor]) -> tuple[int, ...]:
    """Where tensors are in memory."""
    return tuple(tensor.data_ptr() for tensor in tensors)
