"""One training in several processes of one thread, which on a CPU is faster than one process of several threads:

    torchrun --nproc-per-node 2 -m world3d.flow.train …

Every process draws the same batch and computes its part of it; one of them saves and tells.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor, distributed, nn
from torch.nn.utils import parameters_to_vector


def join() -> None:
    """Meet the other processes, if `torchrun` started this one, and stay on a core of one's own."""
    if not distributed.is_torchelastic_launched():
        return
    distributed.init_process_group("gloo")
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[number() % len(cores)]})
    torch.set_num_threads(1)


def number() -> int:
    return distributed.get_rank() if distributed.is_initialized() else 0


def part(*rows: Tensor) -> tuple[Tensor, ...]:
    """This process's rows (B / processes, …) of tensors (B, …)."""
    count = distributed.get_world_size() if distributed.is_initialized() else 1
    return tuple(tensor[number() :: count] for tensor in rows)


def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Set each gradient to its mean over the processes."""
    if not distributed.is_initialized():
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    joined = parameters_to_vector(gradients)
    distributed.all_reduce(joined)
    joined /= distributed.get_world_size()
    for gradient, mean in zip(gradients, joined.split([gradient.numel() for gradient in gradients])):
        gradient.copy_(mean.view_as(gradient))
