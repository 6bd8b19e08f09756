"""A small VAE that reduces images 4 × as Stable Diffusion 1.x's, which reduces 8 ×, at twice the image size.

The wide one decodes to the small one's image with each pixel doubled, and encodes the mean of each 2 × 2 pixels. Every
other number is the same: the doubling is linear, and a residual layer is linear on pairs of x and −x (`channels.py`).
The scaling factor goes into the layers next to the latents.
"""

from __future__ import annotations

from math import log

import torch
from diffusers import AutoencoderKL
from torch import nn

from .channels import (
    Channels,
    add_layer,
    by_group,
    in_pairs,
    plain,
    pointwise,
    set_norm,
    set_passing,
)

WIDTHS, GROUPS = (128, 256, 512, 512), 32
SCALING_FACTOR = 0.18215  # of Stable Diffusion 1.x
_AFTER = 8  # groups: what a layer writes beside its copies begins there


def wide_vae() -> AutoencoderKL:
    """An untrained VAE of Stable Diffusion 1.x's layout."""
    count = len(WIDTHS)
    return AutoencoderKL(
        block_out_channels=WIDTHS,
        down_block_types=("DownEncoderBlock2D",) * count,
        up_block_types=("UpDecoderBlock2D",) * count,
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=GROUPS,
        scaling_factor=SCALING_FACTOR,
    )


@torch.no_grad()
def widen_vae(small: AutoencoderKL, wide: AutoencoderKL) -> None:
    """Fill a wide VAE with weights that compute what the small one does, in images of twice the size."""
    for parameter in wide.parameters():
        parameter.zero_()
    _Widening(small).encoder(wide.encoder)
    _Widening(small).decoder(wide.decoder)
    factor = small.config.scaling_factor / SCALING_FACTOR
    moments = Channels(torch.diag(torch.tensor([factor] * 4 + [1.0] * 4)))
    add_layer(wide.quant_conv, small.quant_conv.weight, small.quant_conv.bias, moments, torch.eye(8))
    wide.quant_conv.bias[4:] += 2 * log(factor)  # of the logarithm of the variance
    first = small.post_quant_conv
    add_layer(wide.post_quant_conv, first.weight / factor, first.bias, plain(4, 4), torch.eye(4))


class _Widening:
    """Layers of a small VAE, put into a wide one."""

    def __init__(self, small: AutoencoderKL):
        self.small = small
        self.groups = GROUPS, small.config.norm_num_groups
        self.narrow, self.middle, self.broad = small.config.block_out_channels

    def encoder(self, wide: nn.Module) -> None:
        small = self.small.encoder
        colors, pairs = plain(WIDTHS[0], 3), in_pairs(WIDTHS[0], 3, GROUPS)
        add_layer(wide.conv_in, pointwise(torch.eye(3)), None, colors, torch.eye(3))
        mean = torch.zeros(3, 3, 3, 3)
        mean[range(3), range(3), :2, :2] = 0.25
        add_layer(wide.down_blocks[0].downsamplers[0].conv, mean, None, pairs, colors.read)
        first, second, third = (
            self.copies(WIDTHS[1], self.narrow),
            self.copies(WIDTHS[2], self.middle),
            self.copies(WIDTHS[3], self.broad, _AFTER),
        )
        level = wide.down_blocks[1]
        self.convolution(level.resnets[0], small.conv_in, pairs, first)
        self.residual(level.resnets[1], small.down_blocks[0].resnets[0], first, first)
        add_layer(level.downsamplers[0].conv, *_of(small.down_blocks[0].downsamplers[0].conv), first, first.read)
        self.residual(wide.down_blocks[2].resnets[0], small.down_blocks[1].resnets[0], first, second)
        down = small.down_blocks[1].downsamplers[0].conv
        last = small.down_blocks[2].resnets[0]
        self.with_shortcut(wide.down_blocks[2].downsamplers[0].conv, down, last, (second, second, third))
        self.residual(wide.down_blocks[3].resnets[0], last, second, third)
        self.mid(wide.mid_block, small.mid_block, third)
        set_norm(wide.conv_norm_out, small.conv_norm_out, third)
        add_layer(wide.conv_out, *_of(small.conv_out), plain(8, 8), third.read)

    def decoder(self, wide: nn.Module) -> None:
        small = self.small.decoder
        first, second, third = (
            self.copies(WIDTHS[3], self.broad),
            self.copies(WIDTHS[2], self.middle, _AFTER),
            self.copies(WIDTHS[1], self.narrow),
        )
        add_layer(wide.conv_in, *_of(small.conv_in), first, torch.eye(4))
        self.mid(wide.mid_block, small.mid_block, first)
        ours, theirs = small.up_blocks, wide.up_blocks
        for number in (0, 1):
            self.residual(theirs[0].resnets[number], ours[0].resnets[number], first, first)
        up = ours[0].upsamplers[0].conv
        self.with_shortcut(theirs[0].upsamplers[0].conv, up, ours[1].resnets[0], (first, first, second))
        self.residual(theirs[1].resnets[0], ours[1].resnets[0], first, second)
        self.residual(theirs[1].resnets[1], ours[1].resnets[1], second, second)
        add_layer(theirs[1].upsamplers[0].conv, *_of(ours[1].upsamplers[0].conv), second, second.read)
        self.residual(theirs[2].resnets[0], ours[2].resnets[0], second, third)
        self.residual(theirs[2].resnets[1], ours[2].resnets[1], third, third)
        colors = plain(WIDTHS[1], 3, first=WIDTHS[1] // 2)
        self.image(theirs[2].resnets[2], small, third, colors)
        add_layer(theirs[2].upsamplers[0].conv, pointwise(torch.eye(3)), None, colors, colors.read)
        pairs = in_pairs(WIDTHS[0], 3, GROUPS)
        add_layer(theirs[3].resnets[0].conv_shortcut, pointwise(torch.eye(3)), None, pairs, colors.read)
        set_passing(wide.conv_norm_out, pairs)
        add_layer(wide.conv_out, pointwise(torch.eye(3)), None, plain(3, 3), pairs.halves)

    def copies(self, wide: int, narrow: int, first: int = 0) -> Channels:
        return by_group(wide, narrow, self.groups, first)

    def residual(self, target: nn.Module, source: nn.Module, before: Channels, after: Channels) -> None:
        """A residual layer; where only the small one has a shortcut, `with_shortcut` did its work already."""
        set_norm(target.norm1, source.norm1, before)
        add_layer(target.conv1, *_of(source.conv1), after, before.read)
        set_norm(target.norm2, source.norm2, after)
        add_layer(target.conv2, *_of(source.conv2), after, after.read)
        if target.conv_shortcut is not None:
            same = pointwise(torch.eye(before.write.shape[1])), None
            kept = same if source.conv_shortcut is None else _of(source.conv_shortcut)
            add_layer(target.conv_shortcut, *kept, after, before.read)

    def with_shortcut(
        self, target: nn.Module, source: nn.Module, following: nn.Module, layouts: tuple[Channels, Channels, Channels]
    ) -> None:
        """A convolution whose output stands beside what the shortcut of the residual layer after it makes of it.

        Args:
            layouts: of the input, of the output, and of the shortcut's output.
        """
        before, after, beside = layouts
        shortcut = following.conv_shortcut
        matrix = shortcut.weight[:, :, 0, 0]
        add_layer(target, *_of(source), after, before.read)
        both = torch.einsum("oa,ai...->oi...", matrix, source.weight), matrix @ source.bias + shortcut.bias
        add_layer(target, *both, beside, before.read)

    def convolution(self, target: nn.Module, source: nn.Module, pairs: Channels, after: Channels) -> None:
        """A residual layer with an empty shortcut as one convolution of pairs."""
        through = in_pairs(target.conv1.out_channels, source.out_channels, GROUPS)
        set_passing(target.norm1, pairs)
        add_layer(target.conv1, *_of(source), through, pairs.halves)
        set_passing(target.norm2, through)
        add_layer(target.conv2, pointwise(torch.eye(source.out_channels)), None, after, through.halves)

    def image(self, target: nn.Module, source: nn.Module, before: Channels, colors: Channels) -> None:
        """A residual layer that writes the decoder's image beside the channels that it is made of."""
        through = in_pairs(target.conv1.out_channels, 3, GROUPS)
        set_norm(target.norm1, source.conv_norm_out, before)
        add_layer(target.conv1, *_of(source.conv_out), through, before.read)
        set_passing(target.norm2, through)
        add_layer(target.conv2, pointwise(torch.eye(3)), None, colors, through.halves)

    def mid(self, target: nn.Module, source: nn.Module, channels: Channels) -> None:
        for wide, narrow in zip(target.resnets, source.resnets):
            self.residual(wide, narrow, channels, channels)
        wide, narrow = target.attentions[0], source.attentions[0]
        set_norm(wide.group_norm, narrow.group_norm, channels)
        size, count = channels.write.shape
        once = plain(size, count)
        scaled = Channels(once.write * (size / count) ** 0.25)  # the wide one divides products by √size, not √count
        for name, out in (("to_q", scaled), ("to_k", scaled), ("to_v", once)):
            add_layer(getattr(wide, name), *_of(getattr(narrow, name)), out, channels.read)
        add_layer(wide.to_out[0], *_of(narrow.to_out[0]), channels, once.read)


def _of(layer: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    return layer.weight, layer.bias
