"""Small tensors on their way to the device."""

from __future__ import annotations

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """The same tensor on the device; the host does not wait for what the device is still doing."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()  # from other memory a copy waits
    return tensor.to(device, non_blocking=True)
