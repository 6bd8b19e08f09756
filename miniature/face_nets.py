"""Small networks that see faces: a detector, a recogniser, and a judge of what else is in a picture."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .render import SIZE
from .scenes import BACKGROUNDS, EXPRESSIONS, HATS, STYLES

EMBEDDING = 512
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
    """The same network for inference: each batch norm goes into the layer before it."""
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
