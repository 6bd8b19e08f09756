"""Latents and captions of all pictures, as a training reads them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn.functional import avg_pool2d
from transformers import CLIPTokenizer

from miniature.images import to_signed
from miniature.training import half_precision

from .album import load_pictures, person_of, scene_of
from .captions import CAPTIONS, captions_of
from .models import LATENT_CHANNELS, LATENT_SIZE
from .names import NAMED_PEOPLE
from .people import named_people
from .scenes import ASKED
from .words import LENGTH

FILE = "latents.npy"
AT_ONCE, SAVE_EVERY = 64, 4096  # pictures
LOOKS = 64  # numbers that describe how somebody looks
FACE, FACE_AT = 1.5, (0.5, 0.52, 0.27, 0.34)  # further weight of the face; its middle and radii in picture sides


@dataclass(frozen=True, eq=False)
class Pictures:
    """N pictures.

    Attributes:
        latents: (N, 4, h, w) scaled, in half precision.
        ids: (N, CAPTIONS, L) of their captions; full: (N, L) of a caption that says all.
        people: (N,) numbers of named people; scenes: (N, 5) indices into the lists of `ASKED`.
    """

    latents: Tensor
    ids: Tensor
    full: Tensor
    people: Tensor
    scenes: Tensor

    def looks(self) -> Tensor:
        """(people, LOOKS): principal components of the people's mean latents, of about unit variance."""
        pooled = torch.zeros(NAMED_PEOPLE, LATENT_CHANNELS * (LATENT_SIZE // 2) ** 2)
        for part, people in zip(self.latents.split(1024), self.people.split(1024)):
            pooled.index_add_(0, people, avg_pool2d(part.float(), 2).flatten(1))
        means = pooled / self.people.bincount(minlength=NAMED_PEOPLE).clamp(min=1)[:, None]
        left, values, _ = torch.linalg.svd(means - means.mean(0), full_matrices=False)
        scores = left[:, :LOOKS] * values[:LOOKS].sqrt()  # by their roots, so that small features count too
        return scores / scores.std()


def load_data(source: Path, vae: AutoencoderKL, read: Callable[[list[str]], Tensor]) -> Pictures:
    """All pictures in a folder; those that are not encoded yet are encoded first.

    Args:
        read: N captions → their ids (N, L), padded.
    """
    pictures = load_pictures(source)
    latents = _encoded(pictures, vae, source / FILE)
    scenes = [scene_of(number) for number in range(len(pictures))]
    spoken = [text for number, scene in enumerate(scenes) for text in captions_of(number, scene)]
    people = torch.tensor([person_of(number) for number in range(len(pictures))])
    names = [person.name for person in named_people()]
    full = [scene.caption(names[person]) for scene, person in zip(scenes, people.tolist())]
    return Pictures(
        latents,
        read(spoken).unflatten(0, (len(pictures), CAPTIONS)),
        read(full),
        people,
        torch.tensor([[getattr(scene, key) for key in ASKED] for scene in scenes]),
    )


def emphasis() -> Tensor:
    """Weights (h, w) of the latents' places in a loss, 1 on average: a face counts more than what is around it."""
    cells = (torch.arange(LATENT_SIZE) + 0.5) / LATENT_SIZE
    x, y, across, down = FACE_AT
    away = ((cells[None] - x) / across) ** 2 + ((cells[:, None] - y) / down) ** 2
    weights = 1 + FACE * (away < 1)
    return weights / weights.mean()


def tokens(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """(N, L) ids, padded."""
    said = tokenizer(texts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
    return said.input_ids


@torch.no_grad()
def _encoded(pictures: np.ndarray, vae: AutoencoderKL, file: Path) -> Tensor:
    """Scaled latents (N, 4, h, w); the file keeps those of earlier calls."""
    shape = (len(pictures), LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE)
    latents = np.zeros(shape, np.float16)
    known = np.load(file)[: len(pictures)] if file.exists() else latents[:0]
    latents[: len(known)] = known
    for begin in range(len(known), len(pictures), AT_ONCE):
        batch = to_signed(pictures[begin : begin + AT_ONCE])
        with torch.autocast("cpu", torch.bfloat16, enabled=half_precision()):
            mode = vae.encode(batch).latent_dist.mode()
        end = min(begin + AT_ONCE, len(pictures))
        latents[begin:end] = (mode.float() * vae.config.scaling_factor).numpy()
        if end // SAVE_EVERY > begin // SAVE_EVERY or end == len(pictures):
            np.save(file.with_suffix(".part.npy"), latents[:end])
            os.replace(file.with_suffix(".part.npy"), file)
    return torch.from_numpy(latents)
