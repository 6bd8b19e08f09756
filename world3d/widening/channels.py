"""Where a narrow network's channels lie in a wide one, and weights that read and write them there.

A layout is a matrix (W, w): each column has the signs with which one of w channels stands in W channels. Copies are as
in Net2Wider (arXiv 1511.05641, section 3.1); channels without an entry are 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

LARGE = 512.0  # beside it a norm's statistics are constant: an error of ½ (rms / LARGE)²; more costs digits of float32


@dataclass(frozen=True, eq=False)
class Channels:
    """A layout.

    Attributes:
        write: (W, w) of −1, 0 and 1.
        constant: (W,) added to what is written.
    """

    write: Tensor
    constant: Tensor | None = None

    @property
    def read(self) -> Tensor:
        """(w, W): the mean of a channel's copies."""
        return (self.write / self.write.abs().sum(0)).T

    @property
    def halves(self) -> Tensor:
        """(w, W): the difference of a pair, which after SiLU is the value itself: silu(x) − silu(−x) = x."""
        return self.write.T

    @property
    def used(self) -> Tensor:
        """(W,) of bool."""
        return self.write.abs().sum(1) > 0


def plain(wide: int, narrow: int, first: int = 0) -> Channels:
    """Each channel once, from place `first` on."""
    return Channels(torch.eye(wide)[:, first : first + narrow])


def in_a_row(wide: int, narrow: int) -> Channels:
    """Each channel k times in a row, which fills all."""
    return Channels(torch.eye(narrow).repeat_interleave(wide // narrow, 0))


def by_group(wide: int, narrow: int, groups: tuple[int, int], first: int = 0) -> Channels:
    """Each group of the narrow norm repeated within one group of the wide one, from group `first` on.

    Args:
        groups: of the wide norm and of the narrow one.
    """
    write = torch.zeros(wide, narrow)
    sizes = wide // groups[0], narrow // groups[1]
    for group in range(groups[1]):
        for place in range(sizes[0]):
            write[(first + group) * sizes[0] + place, group * sizes[1] + place * sizes[1] // sizes[0]] = 1
    return Channels(write)


def in_pairs(wide: int, narrow: int, groups: int) -> Channels:
    """x and −x of each channel in one group with ±LARGE, so that a norm only divides by a constant.

    The mean of such a group is 0, and its variance that of ±LARGE.
    """
    size = wide // groups
    write, constant = torch.zeros(wide, narrow), torch.zeros(wide)
    for channel in range(narrow):
        group, pair = divmod(channel, (size - 2) // 2)
        begin = group * size
        write[begin + 2 * pair, channel], write[begin + 2 * pair + 1, channel] = 1, -1
        constant[begin + size - 2], constant[begin + size - 1] = LARGE, -LARGE
    return Channels(write, constant)


def add_layer(target: nn.Module, weight: Tensor, bias: Tensor | None, out: Channels, read: Tensor) -> None:
    """Add a narrow layer to a wide one; a 1 × 1 kernel to the middle of a larger one.

    Args:
        weight: (o, i, …) of the narrow layer.
        out: layout of its output.
        read: (i, I) of its input.
    """
    wide = torch.einsum("Oo,oi...,iI->OI...", out.write, weight, read)
    own = target.weight
    if wide.ndim == 4 and own.ndim == 4 and own.shape[2:] != wide.shape[2:]:
        own = own[:, :, 1:2, 1:2]
    own += wide.view(own.shape)
    if bias is not None:
        target.bias += out.write @ bias
    if out.constant is not None:
        target.bias += out.constant


def set_norm(target: nn.Module, source: nn.Module, channels: Channels) -> None:
    """A norm over copies, which has the same statistics."""
    used = channels.used
    target.weight[used] = (channels.write @ source.weight)[used]
    target.bias[used] = (channels.write @ source.bias)[used]


def set_passing(target: nn.GroupNorm, pairs: Channels) -> None:
    """A norm that passes pairs on as they are."""
    size = target.num_channels // target.num_groups
    target.weight[pairs.used] = (2 * LARGE**2 / size) ** 0.5


def pointwise(matrix: Tensor) -> Tensor:
    """A matrix (o, i) as a kernel (o, i, 1, 1)."""
    return matrix[..., None, None]
