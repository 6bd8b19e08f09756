"""Small networks for faces: a detector, a recogniser, and a classifier of what else an image shows."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .render import SIZE
from .scenes import BACKGROUNDS, EXPRESSIONS, HATS, STYLES

EMBEDDING, SECOND_EMBEDDING = 512, 256
POOL = 2  # the recogniser sees crops at half their size
OUTPUTS = 1 + 4 + 10  # of the detector: score, box, key points
ATTRIBUTES = {"background": len(BACKGROUNDS), "hat": len(HATS), "expression": len(EXPRESSIONS), "style": len(STYLES)}


def _block(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


def recogniser() -> nn.Sequential:
    """Pictures (B, 3, 56, 56) in −1…1 → embeddings (B, 512), not normalised."""
    return nn.Sequential(
        *_block(3, 32, 2),
        *_block(32, 64, 1),
        *_block(64, 96, 2),
        *_block(96, 96, 1),
        *_block(96, 64, 2),
        nn.Flatten(),
        nn.Linear(64 * 7 * 7, EMBEDDING, bias=False),
        nn.BatchNorm1d(EMBEDDING),
    )


class _Residual(nn.Module):
    """Two convolutions with a skip connection."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.first, self.second = nn.Conv2d(inputs, outputs, 3, stride, 1), nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.first_norm, self.second_norm = nn.GroupNorm(8, inputs), nn.GroupNorm(8, outputs)
        self.around = nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.first(torch.nn.functional.silu(self.first_norm(x)))
        return self.around(x) + self.second(torch.nn.functional.silu(self.second_norm(inner)))


def second_recogniser() -> nn.Sequential:
    """A recogniser of another architecture, for measuring only: images (B, 3, 56, 56) in −1…1 → embeddings (B, 256)."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 5, 2, 2),
        _Residual(32, 48, 1),
        _Residual(48, 80, 2),
        _Residual(80, 128, 2),
        nn.GroupNorm(8, 128),
        nn.SiLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(128 * 16, SECOND_EMBEDDING),
    )


def detector() -> nn.Sequential:
    """Pictures (B, 3, 64, 64) in −1…1 → (B, 15): logit of a face, its box and key points in −1…1."""
    return nn.Sequential(
        *_block(3, 24, 2),
        *_block(24, 48, 2),
        *_block(48, 64, 1),
        *_block(64, 64, 2),
        nn.Flatten(),
        nn.Linear(64 * 8 * 8, 96),
        nn.ReLU(),
        nn.Linear(96, OUTPUTS),
    )


class Judge(nn.Module):
    """Pictures (B, 3, 64, 64) in 0…1 → which background, hat, expression, style."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            *_block(3, 24, 2),
            *_block(24, 48, 2),
            *_block(48, 64, 2),
            *_block(64, 64, 1),
            nn.Flatten(),
            nn.Linear(64 * (SIZE // 8) ** 2, sum(ATTRIBUTES.values())),
        )

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """Attribute → logits (B, choices)."""
        parts = self.net(pictures * 2 - 1).split(list(ATTRIBUTES.values()), dim=1)
        return dict(zip(ATTRIBUTES, parts))


def fold_norms(net: nn.Sequential) -> list[nn.Module]:
    """The network for inference, with each batch norm folded into the layer before it."""
    folded: list[nn.Module] = []
    for layer in net:
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            scale = layer.weight / (layer.running_var + layer.eps).sqrt()
            before = folded[-1]
            weight = before.weight * scale.view(-1, *[1] * (before.weight.ndim - 1))
            bias = layer.bias - layer.running_mean * scale
            folded[-1] = _with_weights(before, weight.detach(), bias.detach())
        else:
            folded.append(layer)
    return folded


def _with_weights(layer: nn.Module, weight: Tensor, bias: Tensor) -> nn.Module:
    if isinstance(layer, nn.Conv2d):
        made = nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding)
    else:
        made = nn.Linear(layer.in_features, layer.out_features)
    with torch.no_grad():
        made.weight.copy_(weight)
        made.bias.copy_(bias)
    return made
