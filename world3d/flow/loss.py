"""The loss of flow matching (arXiv 2210.02747), and batches of captions of about one length."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from idea_core.diffusion.schedule import FlowSchedule
from miniature.processes import part
from miniature.training import half_precision

from ..captions import CAPTIONS, NULL
from ..latents import Pictures, emphasis
from ..people import named_people
from ..scenes import SIZE
from . import pairs
from .models import SHIFT
from .tokenizer import LENGTH, lengths, tokens

MULTIPLE = 32  # the transformer pads a text's tokens to multiples of it


class Batches:
    """Batches in which texts are padded to the same length, so that no mask is needed; every caption is as likely.

    Some batches are of pictures of two people.
    """

    def __init__(self, data: Pictures, tokenizer):
        self.data, self.tokenizer, count = data, tokenizer, lengths(data.ids, tokenizer).flatten()
        self.names = [person.name for person in named_people()]
        self.groups = [
            ((count > longest - MULTIPLE) & (count <= longest)).nonzero().flatten()
            for longest in range(MULTIPLE, LENGTH + 1, MULTIPLE)
        ]
        self.shares = torch.tensor([len(group) for group in self.groups], dtype=torch.float32)

    def draw(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Latents (B, 4, h, w) and ids (B, L); of as many pixels if they are of two people."""
        if torch.rand((), generator=generator) < pairs.SHARE:
            return self.pairs(size * SIZE // pairs.WIDTH, generator)
        group = self.groups[int(torch.multinomial(self.shares, 1, generator=generator))]
        chosen = group[torch.randint(len(group), (size,), generator=generator)]
        picture, caption = chosen // CAPTIONS, chosen % CAPTIONS
        return self.data.latents[picture].float(), self.data.ids[picture, caption]

    def pairs(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Latents (B, 4, h, 1.5 w) of two people beside each other, and ids (B, L) of who they are."""
        left, right = torch.randint(len(self.data.latents), (2, size), generator=generator)
        names = [[self.names[person] for person in self.data.people[side].tolist()] for side in (left, right)]
        told = (torch.rand(size, generator=generator) > NULL).tolist()
        texts = [pairs.caption(*both) if tell else "" for both, tell in zip(zip(*names), told)]
        latents = self.data.latents
        return pairs.beside(latents[left].float(), latents[right].float()), tokens(self.tokenizer, texts)


class Loss:
    """Mean squared error of the direction from noise to picture, weighted by place."""

    def __init__(self, tokenizer, text_encoder, transformer):
        self.tokenizer, self.text_encoder, self.transformer = tokenizer, text_encoder, transformer
        one = emphasis()
        self.emphasis = {part.shape[-1]: part for part in (one, pairs.beside(one, one))}  # by width
        self.half, self.schedule = half_precision(), FlowSchedule(SHIFT)

    def __call__(self, latents: Tensor, ids: Tensor, generator: torch.Generator) -> Tensor:
        """The loss of latents (B, 4, h, w) with captions (B, L)."""
        noise = torch.randn(latents.shape, generator=generator)
        sigmas = self.schedule.draw(len(latents), generator)
        latents, ids, noise, sigmas = part(latents, ids, noise, sigmas)
        noisy = self.schedule.add_noise(latents, noise, sigmas)
        # On a CPU, a step is 7 % faster without torch's fused attention.
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half), sdpa_kernel(SDPBackend.MATH):
            texts = self.conditions(ids)
            output = self.transformer(list(noisy[:, :, None]), 1 - sigmas, texts, return_dict=False)[0]
        wanted = -self.schedule.target(latents, noise, sigmas)  # Z-Image's sign
        error = (torch.stack(output)[:, :, 0].float() - wanted).square().mean(1) * self.emphasis[latents.shape[-1]]
        return error.mean()

    def conditions(self, ids: Tensor) -> list[Tensor]:
        """The text condition (L, d) of each prompt, as the pipeline reads it."""
        count = lengths(ids, self.tokenizer)
        states = self.text_encoder(ids[:, : int(count.max())], output_hidden_states=True).hidden_states[-2]
        return [row[:length] for row, length in zip(states.float(), count.tolist())]
