"""Whole steps as a CUDA graph: the host starts one thing in place of thousands.

A graph repeats work on tensors that stay where they are. What changes from step to step is copied into buffers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import torch
from torch import Tensor

from .batches import Batch
from .inputs import Inputs

Step = Callable[[Batch], Tensor]
"""A step with a batch; its loss, a detached scalar on the device."""


class Recorder(Protocol):
    """Records what a device computes."""

    def warming(self) -> AbstractContextManager[None]:
        """While open, work is done as it has to be before it is recorded."""

    def record(self, compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """A function that repeats `compute` and gives a new tensor with its result.

        Raises:
            RuntimeError: work that cannot be recorded.
        """


class CudaRecorder:
    """CUDA graphs (https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs, whole-network capture)."""

    @contextmanager
    def warming(self) -> Iterator[None]:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            yield
        torch.cuda.current_stream().wait_stream(side)

    def record(self, compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
        graph = torch.cuda.CUDAGraph()
        torch.cuda.empty_cache()  # the graph has memory of its own
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may use the device
            result = compute()

        def replay() -> Tensor:
            graph.replay()
            return result.clone()

        return replay


def recorder_for(device: torch.device) -> Recorder | None:
    """What records the work of a device; None: nothing does."""
    return CudaRecorder() if device.type == "cuda" else None


class RecordedStep:
    """A recording of one step, for batches of the same shapes.

    Args:
        compute: a whole step on the device, from its inputs to changed weights.
        inputs_of: sends a batch to the device.
        weights: all tensors that stay where they are; a recording reads and changes them there.
    """

    def __init__(
        self,
        recorder: Recorder,
        compute: Callable[[Inputs], Tensor],
        inputs_of: Callable[[Batch], Inputs],
        batch: Batch,
        weights: Callable[[], Iterable[Tensor]],
    ):
        self._inputs_of, self._weights = inputs_of, weights
        self._buffers = inputs_of(batch).map(torch.clone)
        self._addresses = addresses(weights())
        self._repeat = recorder.record(lambda: compute(self._buffers))

    @property
    def holds(self) -> bool:
        """Whether all weights are still where they were."""
        return addresses(self._weights()) == self._addresses

    def __call__(self, batch: Batch) -> Tensor:
        for buffer, part in zip(self._buffers, self._inputs_of(batch)):
            if buffer is not None and part is not None:
                buffer.copy_(part, non_blocking=True)
        return self._repeat()


def addresses(tensors: Iterable[Tensor]) -> tuple[int, ...]:
    """Where tensors are in memory."""
    return tuple(tensor.data_ptr() for tensor in tensors)
