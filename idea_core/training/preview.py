"""Previews of a person's training: images of the person, and their face similarity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..diffusion.sampling import empty_prompt, sample
from ..errors import ConfigError
from ..settings import Settings, setting
from ..text.captions import require_prompts
from ..text.tokenized import tokenize_captions
from .stopping import EarlyStopping, Preview, Watch
from .trainer import Trainer

PROMPT = "a photo of {}"

Score = Callable[[Tensor], float]
"""Images (B, H, W, 3) in 0…1 → mean similarity to the person's mean embedding; an image without a face counts as 0."""


@dataclass(frozen=True)
class PreviewConfig(Settings):
    """How previews of a person are drawn.

    Attributes:
        prompts: with `{}` for the person.
        seeds: one for each image of a prompt; all previews start from the same noise.
    """

    prompts: Sequence[str] = (PROMPT,)
    seeds: Sequence[int] = (0,)
    steps: int = setting(12, "Sampling steps of each preview.", min=1)
    guidance: float = setting(5.0, "Guidance scale (CFG) of the previews.")

    def _check(self) -> None:
        self._require("seeds", len(self.seeds) > 0, "with at least one seed")
        require_prompts(self.prompts or ("",), "person")


@dataclass(frozen=True)
class WatchConfig(Settings):
    """When previews are drawn, and when a training ends early.

    Attributes:
        preview: how previews are drawn.
        before_and_after: also draw the person before the first step and after the last.
    """

    every: int = setting(
        0,
        "Steps between two previews of the person. 0: none.",
        min=0,
        soft_max=10_000,
        advanced=True,
        option="--preview-every",
    )
    preview: PreviewConfig = PreviewConfig()
    target: float | None = setting(
        None,
        "Face similarity (cosine) of the previews at which the training ends. When the similarity falls, the training "
        "ends too, at its best step.",
        step=0.01,
        soft_max=1,
        advanced=True,
        option="--until-likeness",
    )
    before_and_after: bool = False

    def _check(self) -> None:
        if self.target is not None and not self.every:
            got = "a target without previews"
            raise ConfigError("previews at which likeness is measured", got, "Set the steps between two previews.")


class Portrait:
    """Draws a person in training, as trained so far.

    Its prompts are read once, before the training, while the text encoders are at hand; one that is too long is an
    error then.
    """

    def __init__(self, trainer: Trainer, config: PreviewConfig = PreviewConfig()):
        self._trainer, self._config = trainer, config
        self._captions = tokenize_captions(trainer.backbone, config.prompts, trainer.config.num_tokens)
        self._negative = empty_prompt(trainer.backbone)

    def images(self) -> Tensor:
        """Images (B, H, W, 3) in 0…1, on the CPU; inside `trainer.active`."""
        return self._trainer.backbone.decode_images(self.latents())

    @torch.no_grad()
    def latents(self) -> Tensor:
        """Latents (B, c, h, w), in the photos' first size; inside `trainer.active`."""
        trainer, config, backbone = self._trainer, self._config, self._trainer.backbone
        shape = trainer.dataset.buckets[0].latents.mean.shape[1:]
        noise = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(one)) for one in config.seeds])
        positives = (trainer.condition([caption]) for caption in self._captions)
        drawn = [sample(backbone, one, self._negative, noise, config.steps, config.guidance) for one in positives]
        return torch.cat(drawn)


def watch_person(portrait: Portrait, config: WatchConfig, score: Score | None) -> Watch:
    """The previews of a person's training, every `config.every` steps.

    Args:
        score: measures the previews; None: they are only shown.
    """

    def draw() -> Preview:
        images = portrait.images()
        return Preview(images, None if score is None else score(images))

    return Watch(config.every, draw, EarlyStopping(config.target))
