"""A network compiled by torch.compile, which still obeys hooks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from ...errors import first_line

logger = logging.getLogger(__name__)


class CompiledNetwork:
    """A network that is compiled when it is first called, and again for inputs of another shape.

    By default torch.compile takes a module's hooks as they are at that moment: K/V deltas that are hung in later, or
    another person's, silently have no effect. Here a change of hooks compiles anew. Where compilation fails, the
    network computes as always.

    Args:
        backend: of torch.compile.
    """

    def __init__(self, network: nn.Module, backend: str | Callable[..., Any] = "inductor"):
        self._network, self._compiled = network, torch.compile(network, backend=backend, dynamic=False)

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        try:
            with torch._dynamo.config.patch(skip_nnmodule_hook_guards=False):
                return self._compiled(*inputs, **options)
        except torch._dynamo.exc.TorchDynamoException as error:
            self.gives_up(error)
            return self._network(*inputs, **options)

    def gives_up(self, error: BaseException) -> bool:
        """After an error of the compiler: compute as always. Gradients are compiled only when they are computed."""
        if self._compiled is self._network or not isinstance(error, torch._dynamo.exc.TorchDynamoException):
            return False
        logger.warning("ID-EA: the network is not compiled. %s", first_line(error))
        self._compiled = self._network
        return True


def can_compile(device: torch.device) -> bool:
    """Whether compilation pays in long trainings: on CUDA with Triton."""
    return device.type == "cuda" and find_spec("triton") is not None
