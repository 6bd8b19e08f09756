"""When a training has gone wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

READ_EVERY = 10  # steps between two reads of the losses, each of which waits for the device
EXPLODED = 5.0  # times the loss of the first steps
MAX_LOSS = 2.0  # loss; guessing nothing at all has about 1


def divergence(losses: Sequence[float], read: int, weights: Mapping[str, Tensor]) -> str:
    """What went wrong in the losses after the first `read` ones, or in the weights; "" if all is well."""
    fresh = torch.tensor(losses[read:])
    if not fresh.isfinite().all():
        step = read + int(fresh.isfinite().logical_not().nonzero()[0]) + 1
        return f"{losses[step - 1]} at step {step}"
    first = torch.tensor(losses[:READ_EVERY]).mean()
    if fresh.mean() > max(EXPLODED * first, MAX_LOSS):
        return f"{fresh.mean():.1f} on average of the steps up to {len(losses)}, {first:.2f} at first"
    if not torch.stack([weight.isfinite().all() for weight in weights.values()]).all():
        return f"weights that are not finite after step {len(losses)}"
    return ""
