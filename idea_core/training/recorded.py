"""Whole steps as a CUDA graph: the host starts one thing in place of thousands.

A graph repeats work on tensors that stay where they are. What changes from step to step is copied into buffers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from .batches import Batch
from .inputs import Inputs

logger = logging.getLogger(__name__)

LOST = 3  # times: weights that move, or memory that runs out, again and again are no ground for recordings
MOVED = "weights of the base model move"
_Key = TypeVar("_Key")
_Recording = TypeVar("_Recording")
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


class Recordings(Generic[_Key, _Recording]):
    """Recordings of one training, for as long as they are right and worth their memory.

    Attributes:
        bytes: of memory that they had for themselves, at most.
        reason: why all further work is computed; "" if it need not be.
        repeated: how often a recording did it.
    """

    computed = "it is computed"  # what is said where nothing is recorded
    recorded = "it is repeated"

    def __init__(self, recorder: Recorder):
        self._recorder = recorder
        self._recordings: dict[_Key, _Recording] = {}
        self._addresses: tuple[int, ...] = ()  # of all that they read and change
        self._lost = 0  # times that all of them had to be given up
        self.reason, self.repeated, self.bytes = "", 0, 0

    def release(self, why: str = "", /) -> bool:
        """Give back the memory of recordings; False: there was none.

        Args:
            why: they had to be given up; where that happens again and again, no more are made.
        """
        had = bool(self._recordings)
        self._recordings.clear()
        self._forget_trials()
        if had:
            self._recorder.forget()
        if had and why:
            self._lost += 1
            if self._lost == LOST:
                self.stop(why)
        return had

    def stop(self, reason: str) -> None:
        """Compute all further work, for a reason."""
        logger.info("ID-EA: %s: %s.", self.computed, reason)
        self.reason = reason
        self.release()

    def _forget_trials(self) -> None:
        """Begin anew what has not led to a recording yet."""

    def _drop_moved(self, where: tuple[int, ...]) -> None:
        """Forget recordings whose weights have moved, so that new ones are tried."""
        if self._recordings and where != self._addresses:
            self.release(MOVED)

    def _end_trial(self, reason: str) -> None:
        """Say how a trial has ended, and stop where there is a reason."""
        self.bytes = max(self.bytes, self._recorder.bytes)
        if reason:
            self.stop(reason)
        else:
            logger.info("ID-EA: %s, with %.0f MiB for itself.", self.recorded, self.bytes / 2**20)


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
        refill(self._buffers, self._inputs_of(batch))
        return self._repeat()


@torch.no_grad()
def refill(buffers: Iterable[Tensor | None], parts: Iterable[Tensor | None]) -> None:
    """Copy what a recording shall work on into its buffers; some may be nothing."""
    for buffer, part in zip(buffers, parts):
        if buffer is not None and part is not None:
            buffer.copy_(part, non_blocking=True)


def addresses(tensors: Iterable[Tensor]) -> tuple[int, ...]:
    """Where tensors are in memory."""
    return tuple(tensor.data_ptr() for tensor in tensors)
