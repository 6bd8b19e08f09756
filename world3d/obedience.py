"""Whether a picture shows what was asked for: a small network that tells background, pattern, hat, glasses, look."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .scenes import ASKED

FILE = Path(__file__).parent / "data" / "judge.safetensors"
WIDTHS = (24, 48, 96, 128)
GRID = 3  # cells of a side in which features are averaged


class Judge(nn.Module):
    """Pictures (B, 3, S, S) in −1…1 → logits by name of what is asked for, (B, number of choices) each."""

    def __init__(self):
        super().__init__()
        layers: list[nn.Module] = []
        for before, width in zip((3, *WIDTHS), WIDTHS):
            layers += [nn.Conv2d(before, width, 3, stride=2, padding=1), nn.GroupNorm(8, width), nn.SiLU()]
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(8, width), nn.SiLU()]
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(GRID), nn.Flatten())
        self.heads = nn.Linear(WIDTHS[-1] * GRID**2, sum(map(len, ASKED.values())))

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        logits = self.heads(self.features(pictures)).split([len(choices) for choices in ASKED.values()], dim=1)
        return dict(zip(ASKED, logits))


@cache
def judge() -> Judge:
    """The trained judge."""
    net = Judge()
    net.load_state_dict({key: value.float() for key, value in load_file(FILE).items()})
    return net.eval().requires_grad_(False)


def save_judge(net: Judge) -> None:
    FILE.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.half().contiguous() for key, value in net.state_dict().items()}, FILE)


@torch.no_grad()
def through(vae: AutoencoderKL, pictures: Tensor) -> Tensor:
    """Pictures (B, 3, S, S) in −1…1 as a VAE gives them back, out of which all drawn images come, too."""
    parts = [vae.decode(vae.encode(part).latent_dist.mode()).sample for part in pictures.split(32)]
    return torch.cat(parts).clamp(-1, 1)


def obeyed(net: Judge, pictures: Tensor, wanted: Tensor) -> dict[str, float]:
    """Shares of pictures that show what is wanted; arguments as of `right`."""
    return shares(right(net, pictures, wanted))


def shares(answers: Mapping[str, Tensor]) -> dict[str, float]:
    """Shares of 1 among answers (B,), by name."""
    return {key: round(float(answer.mean()), 4) for key, answer in answers.items()}


@torch.no_grad()
def right(net: Judge, pictures: Tensor, wanted: Tensor) -> dict[str, Tensor]:
    """Whether pictures (B, 3, S, S) in −1…1 show what is wanted, 1 or 0: (B,) each.

    Args:
        wanted: (B, 5) indices into the lists of `ASKED`.
    """
    said = [net(part) for part in pictures.split(64)]
    answers = {key: torch.cat([part[key].argmax(1) for part in said]) for key in ASKED}
    return {key: (answers[key] == wanted[:, k]).float() for k, key in enumerate(ASKED)}
