"""A network's forward and backward pass as CUDA graphs, where another program holds the rest of the step.

ComfyUI loads, moves and encodes between two steps. So a whole step cannot be repeated there, but what takes most of its
time can: the network.
"""

from __future__ import annotations

import logging
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .recorded import Recorder, addresses

logger = logging.getLogger(__name__)

TRIAL = 3  # passes that are computed, before one is recorded
TOLERANCE = 1e-2  # of an output's size, for its difference to the computed one
ALIKE = 0.99  # cosine of gradients
LOST = 3  # times: weights that move, or memory that runs out, again and again are no ground for recordings

Compute = Callable[..., Tensor]
"""Inputs → output, differentiable. Weights are read where they are."""


class RepeatedPasses:
    """A network whose passes are recorded for inputs of the same shapes, once they have been computed a few times.

    A recording is used if output and gradients are those of the computed pass, for the same inputs. Otherwise all
    passes are computed.

    Attributes:
        bytes: of memory that recordings had for themselves, at most.
        reason: why all further passes are computed; "" if they need not be.
        repeated: number of forward passes that a recording did.
    """

    def __init__(self, recorder: Recorder):
        self._recorder = recorder
        self._passes: dict[tuple, _Passes] = {}
        self._counts: Counter[tuple] = Counter()
        self._addresses: tuple[int, ...] = ()
        self._pending: Callable[[], object | None] = lambda: None  # a forward pass whose backward pass is still to come
        self._lost = 0
        self.bytes, self.reason, self.repeated = 0, "", 0

    def __call__(
        self, compute: Compute, inputs: Sequence[Tensor | None], trained: Sequence[Tensor], resting: Sequence[Tensor]
    ) -> Tensor:
        """`compute(*inputs)`, or the same by a recording.

        Args:
            trained: weights whose gradients are wanted; they are changed in place between calls.
            resting: all other weights.
        """
        if self.reason or self._pending() is not None:  # a recording's memory holds one pass at a time
            return compute(*inputs)
        where = addresses((*trained, *resting))
        if self._passes and where != self._addresses:
            self.release("weights of the base model move")
        key = tuple(None if part is None else (part.shape, part.dtype, part.requires_grad) for part in inputs)
        passes = self._passes.get(key)
        if passes is None and not self.reason:
            self._counts[key] += 1
            if self._counts[key] <= TRIAL:
                with self._recorder.warming():
                    return compute(*inputs)
            passes = self._try(compute, inputs, trained)
            self._addresses = where
        if passes is None:
            return compute(*inputs)
        self._passes[key] = passes
        self.repeated += 1
        return passes(self, inputs, trained)

    def release(self, why: str = "", /) -> bool:
        """Give back the memory of recordings; False: there was none.

        Args:
            why: they had to be given up; where that happens again and again, no more are made.
        """
        had = bool(self._passes)
        self._passes.clear()
        self._counts.clear()
        self._pending = lambda: None
        if had:
            self._recorder.forget()
        if had and why:
            self._lost += 1
            if self._lost == LOST:
                self._stop(why)
        return had

    def begin(self) -> object:
        """Say that a pass is under way. It is over when `done`, or when nobody holds the token any more."""
        token = _Token()
        self._pending = weakref.ref(token)
        return token

    def done(self) -> None:
        self._pending = lambda: None

    def _try(self, compute: Compute, inputs: Sequence[Tensor | None], trained: Sequence[Tensor]) -> _Passes | None:
        try:
            passes = _Passes(self._recorder, compute, inputs, trained)
            reason = passes.difference(compute, inputs, trained)
        except RuntimeError as error:  # something cannot be recorded, or has no memory
            reason = str(error).strip().split("\n")[0] or type(error).__name__
        self.bytes = max(self.bytes, self._recorder.bytes)
        if reason:
            self._stop(reason)
            return None
        logger.info("ID-EA: the network is repeated as CUDA graphs, with %.0f MiB of their own.", self.bytes / 2**20)
        return passes

    def _stop(self, reason: str) -> None:
        logger.info("ID-EA: the network is computed at each step, not repeated as CUDA graphs: %s.", reason)
        self.reason = reason
        self.release()


class _Token:
    """Held by the gradients' graph of a pass."""


class _Passes:
    """Both passes for inputs of the same shapes, on buffers of their own."""

    def __init__(
        self, recorder: Recorder, compute: Compute, inputs: Sequence[Tensor | None], trained: Sequence[Tensor]
    ):
        self._buffers = [None if part is None else _leaf(part) for part in inputs]
        self.wanted = [*(part for part in self._buffers if part is not None and part.requires_grad), *trained]
        self.gradient: Tensor | None = None
        self.gradients: Sequence[Tensor | None] = ()
        self._output: Tensor | None = None

        def forward() -> Tensor:
            with torch.enable_grad():
                self._output = compute(*self._buffers)
            return self._output.detach()

        def backward() -> Tensor:
            assert self._output is not None
            self.gradients = torch.autograd.grad(self._output, self.wanted, self.gradient, allow_unused=True)
            return self._output.detach()

        self.forward = recorder.record(forward)
        self.gradient = torch.zeros_like(self.forward() if self._output is None else self._output.detach())
        self.backward = recorder.record(backward)

    def load(self, inputs: Sequence[Tensor | None]) -> None:
        for buffer, part in zip(self._buffers, inputs):
            if buffer is not None and part is not None:
                buffer.detach().copy_(part.detach(), non_blocking=True)

    def __call__(self, owner: RepeatedPasses, inputs: Sequence[Tensor | None], trained: Sequence[Tensor]) -> Tensor:
        live = [part for part in inputs if part is not None and part.requires_grad]
        self.load(inputs)
        return _Repeat.apply(self, owner, *live, *trained)

    def difference(self, compute: Compute, inputs: Sequence[Tensor | None], trained: Sequence[Tensor]) -> str:
        """What differs from the computed passes for the same inputs; "" if nothing does."""
        leaves = [None if part is None else _leaf(part) for part in inputs]
        wanted = [*(part for part in leaves if part is not None and part.requires_grad), *trained]
        with torch.enable_grad():
            output = compute(*leaves)
        computed = torch.autograd.grad(output, wanted, output.detach(), allow_unused=True)
        self.load(inputs)
        repeated = self.forward()
        assert self.gradient is not None
        self.gradient.copy_(output.detach())
        self.backward()
        error = float((repeated - output.detach()).norm() / output.detach().norm())
        if not error <= TOLERANCE:
            return f"an output that differs by {error:.2g} of its size"
        for mine, theirs in zip(computed, self.gradients):
            if mine is None or not mine.any():
                continue
            alike = 0.0 if theirs is None else float(torch.cosine_similarity(mine.flatten(), theirs.flatten(), dim=0))
            if not alike > ALIKE:
                return f"a gradient with a cosine of {alike:.3f}"
        return ""


class _Repeat(torch.autograd.Function):
    """Gradients of a recording, for inputs and trained weights."""

    @staticmethod
    def forward(ctx: Any, passes: _Passes, owner: RepeatedPasses, *_wanted: Tensor) -> Tensor:
        ctx.passes, ctx.owner, ctx.token = passes, owner, owner.begin()
        return passes.forward()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        passes: _Passes = ctx.passes
        assert passes.gradient is not None
        passes.gradient.copy_(gradient)
        passes.backward()
        ctx.owner.done()
        return None, None, *(None if one is None else one.clone() for one in passes.gradients)


def _leaf(part: Tensor) -> Tensor:
    return part.detach().clone().requires_grad_(part.requires_grad)
