"""A network's forward and backward pass as CUDA graphs, where another program holds the rest of the step.

ComfyUI loads, moves and encodes between two steps. So a whole step cannot be repeated there, but what takes most of its
time can: the network.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import first_line
from .recorded import MOVED, Recorder, Recordings, addresses, refill

TRIAL = 3  # passes that are computed, before one is recorded
TOLERANCE = 1e-2  # of an output's size, for its difference to the computed one
ALIKE = 0.99  # cosine of gradients

Compute = Callable[..., Tensor]
"""Inputs → output, differentiable. Weights are read where they are."""


class RepeatedPasses(Recordings[tuple, "_Passes"]):
    """A network whose passes are recorded for inputs of the same shapes, once they have been computed a few times.

    A recording is used if output and gradients are those of the computed pass, for the same inputs. Otherwise all
    passes are computed.
    """

    computed = "the network is computed at each step, not repeated as CUDA graphs"
    recorded = "the network is repeated as CUDA graphs"

    def __init__(self, recorder: Recorder):
        super().__init__(recorder)
        self._counts: Counter[tuple] = Counter()
        self._pending: Callable[[], object | None] = _nothing  # a forward pass whose backward pass is still to come

    def __call__(
        self,
        compute: Compute,
        inputs: Sequence[Tensor | None],
        trained: Sequence[Tensor],
        resting: Callable[[], Sequence[Tensor] | None],
    ) -> Tensor:
        """`compute(*inputs)`, or the same by a recording.

        Args:
            trained: weights whose gradients are wanted; they are changed in place between calls.
            resting: gives all other weights; None: some move.
        """
        if self.reason or self._pending() is not None:  # a recording's memory holds one pass at a time
            return compute(*inputs)
        others = resting()
        if others is None:
            self.stop(MOVED)
            return compute(*inputs)
        where = addresses((*trained, *others))
        self._drop_moved(where)
        key = tuple(None if part is None else (part.shape, part.dtype, part.requires_grad) for part in inputs)
        if key not in self._recordings and not self.reason:
            self._counts[key] += 1
            if self._counts[key] <= TRIAL:
                with self._recorder.warming():
                    return compute(*inputs)
            self._try(key, compute, inputs, trained)
            self._addresses = where
        passes = self._recordings.get(key)
        if passes is None:
            return compute(*inputs)
        self.repeated += 1
        return passes(self, inputs, trained)

    def begin(self) -> object:
        """Say that a pass is under way. It is over when `done`, or when nobody holds the token any more."""
        token = _Token()
        self._pending = weakref.ref(token)
        return token

    def done(self) -> None:
        self._pending = _nothing

    def _forget_trials(self) -> None:
        self._counts.clear()
        self.done()

    def _try(self, key: tuple, compute: Compute, inputs: Sequence[Tensor | None], trained: Sequence[Tensor]) -> None:
        """Record both passes, and compare them with the computed ones for the same inputs."""
        try:
            leaves = [None if part is None else _leaf(part) for part in inputs]
            with torch.enable_grad():
                output = compute(*leaves)
            gradients = torch.autograd.grad(output, _wanted(leaves, trained), output.detach(), allow_unused=True)
            self._recordings[key] = _Passes(self._recorder, compute, leaves, trained, output.detach().clone())
            reason = self._recordings[key].difference(output.detach(), gradients)
        except RuntimeError as error:  # something cannot be recorded, or has no memory
            reason = first_line(error)
        self._end_trial(reason)


def _nothing() -> None:
    """No pass is under way."""


class _Token:
    """Held by the gradients' graph of a pass."""


class _Passes:
    """Both passes for inputs of the same shapes, on buffers of their own.

    Args:
        buffers: inputs of these shapes, which they keep.
        gradient: of the output, a buffer too.
    """

    def __init__(
        self,
        recorder: Recorder,
        compute: Compute,
        buffers: Sequence[Tensor | None],
        trained: Sequence[Tensor],
        gradient: Tensor,
    ):
        self._buffers, self._gradient = buffers, gradient
        self._gradients: Sequence[Tensor | None] = ()
        output = torch.empty(0)

        def forward() -> Tensor:
            nonlocal output
            with torch.enable_grad():
                output = compute(*buffers)
            return output.detach()

        def backward() -> Tensor:
            self._gradients = torch.autograd.grad(output, _wanted(buffers, trained), gradient, allow_unused=True)
            return output.detach()

        self.forward, self._backward = recorder.record(forward), recorder.record(backward)

    def __call__(self, owner: RepeatedPasses, inputs: Sequence[Tensor | None], trained: Sequence[Tensor]) -> Tensor:
        refill(self._buffers, inputs)
        return _Repeat.apply(self, owner, *_wanted(inputs, trained))

    def backward(self, gradient: Tensor) -> list[Tensor | None]:
        """Gradients of the inputs and trained weights that want them, after `forward`."""
        self._gradient.copy_(gradient)
        self._backward()
        return [None if one is None else one.clone() for one in self._gradients]

    def difference(self, output: Tensor, gradients: Sequence[Tensor | None]) -> str:
        """What differs from the computed passes, for what is in the buffers; "" if nothing does.

        Args:
            gradients: where the output's own gradient is the output.
        """
        error = float((self.forward() - output).norm() / output.norm())
        if not error <= TOLERANCE:
            return f"an output that differs by {error:.2g} of its size"
        for mine, theirs in zip(gradients, self.backward(output)):
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
        gradients = ctx.passes.backward(gradient)
        ctx.owner.done()
        return None, None, *gradients


def _wanted(inputs: Sequence[Tensor | None], trained: Sequence[Tensor]) -> list[Tensor]:
    """All of which gradients are wanted."""
    return [*(part for part in inputs if part is not None and part.requires_grad), *trained]


def _leaf(part: Tensor) -> Tensor:
    return part.detach().clone().requires_grad_(part.requires_grad)
