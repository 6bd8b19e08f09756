"""Settings of the images of people, of an ID-Enhancer's training on them, and of the refinement of a person."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from ..errors import ConfigError
from ..files.digest import Digest
from ..method.anchor import celebrity_names
from ..settings import MAX_SEED, Settings, setting
from ..text.captions import PORTRAIT_PROMPTS, require_prompts
from ..training.config import learning_rate

Split = Literal["train", "val"]
MIN_KEPT = 3  # images of a person: one gives the face, another is learned from, and a third confirms both


def _resolution() -> Any:
    return setting(
        512,
        "Size of the images in pixels. Use the base model's own: 512 for most, 768 for SD 2.1 768-v, 1024 for SDXL.",
        min=8,
        soft_max=1024,
        multiple_of=8,
        step=64,
    )


def _guidance(default: float = 7.5, **bounds: float) -> Any:
    return setting(default, "Guidance scale (CFG) of the images.", soft_max=30, advanced=True, **bounds)


def _sampling_steps(default: int) -> Any:
    return setting(default, "Sampling steps of each image.", min=1, soft_max=200, advanced=True)


def _sampling_batch_size() -> Any:
    return setting(
        4,
        "Images sampled together. More images need more memory. An NVIDIA GPU takes up to 12 where memory is free.",
        min=1,
        soft_max=64,
        advanced=True,
    )


@dataclass(frozen=True)
class DatasetConfig(Settings):
    """The people and their images.

    Attributes:
        names: people whom the base model can draw.
        prompts: with `{}` for the name.
        seed: added to the seeds of all images.
        order: of the sampler, 1 or 2.
    """

    names: tuple[str, ...] = field(default_factory=celebrity_names)
    num_synthetic: int = setting(
        0,
        "Number of additional people with made-up names, which combine parts of the names.",
        min=0,
        soft_max=100_000,
        advanced=True,
    )
    prompts: tuple[str, ...] = PORTRAIT_PROMPTS
    images_per_person: int = setting(6, "Images of each person.", min=MIN_KEPT, soft_max=1000)
    resolution: int = _resolution()
    sampling_steps: int = _sampling_steps(15)
    guidance: float = _guidance()
    seed: int = 0
    order: int = 2
    sampling_batch_size: int = _sampling_batch_size()
    min_similarity: float = setting(
        0.4,
        "Face similarity (cosine) to the person's other images below which an image is left out.",
        min=-1,
        max=1,
        advanced=True,
    )
    val_fraction: float = setting(
        0.05, "Share of the names that are kept for validation.", min=0, below=1, soft_max=0.9, advanced=True
    )

    def _check(self) -> None:
        require_prompts(self.prompts, "name")

    def fingerprint(self, model: str, faces: str) -> str:
        """SHA-256 of all that a person's images depend on.

        Args:
            model: digest of the base model and its precision.
            faces: digest of the face models.
        """
        names = ("prompts", "images_per_person", "resolution", "sampling_steps", "guidance", "seed")
        settings = {"model": model, "faces": faces, **{name: getattr(self, name) for name in names}}
        settings |= {} if self.order == 1 else {"order": self.order}  # images of order 1 are older than the setting
        return Digest().add_json(settings).hex()

    @cached_property
    def all_names(self) -> tuple[str, ...]:
        """The names, then the synthetic ones, which combine only names of the training split."""
        return self.names + recombined(self.names[: self._split], self.num_synthetic, self.names)

    def ids_of(self, split: Split) -> list[int]:
        """Indices in `all_names` of the people of a split."""
        if split == "val":
            return list(range(self._split, len(self.names)))
        return [*range(self._split), *range(len(self.names), len(self.all_names))]

    @property
    def _split(self) -> int:
        return len(self.names) - round(len(self.names) * self.val_fraction)


@dataclass(frozen=True)
class EnhancerTrainConfig(Settings):
    """How an `EnhancerModel` is trained. Each learning rate warms up, and falls to a twentieth in its last half."""

    steps: int = setting(5000, "Optimiser steps of the training.", min=1, soft_max=1_000_000)
    text_steps: int = setting(
        2500,
        "Number of first steps that train on text only, without the UNet, which is much faster. A training that starts "
        "from an ID-Enhancer has none.",
        min=0,
        soft_max=1_000_000,
        advanced=True,
    )
    likeness_steps: int = setting(
        0,
        "Number of last steps that draw people and optimise face similarity. Better likeness, but much slower; use a "
        "large batch.",
        min=0,
        soft_max=1_000_000,
        advanced=True,
    )
    batch_size: int = setting(32, "Images per step. Text steps take four times as many.", min=1, soft_max=512)
    lr: float = learning_rate(
        1e-4, "Learning rate of the steps on images. Lower it if the training diverges.", above=0, advanced=True
    )
    text_lr: float = learning_rate(1e-3, "Learning rate of the text steps.", above=0, advanced=True)
    likeness_lr: float = learning_rate(3e-4, "Learning rate of the likeness steps.", above=0, advanced=True)
    seed: int = setting(0, "Seed of all random choices of the training.", min=0, max=MAX_SEED)
    heads: int = setting(8, "Attention heads of ID-Enhancer and ID-Adapter.", min=1, soft_max=32, advanced=True)
    beta: float = setting(0.4, "Scale of ID-Adapter's gate.", above=0, soft_max=10, advanced=True)
    likeness_weight: float = setting(
        0.3, "Weight of the face similarity loss in the likeness steps.", above=0, soft_max=10, advanced=True
    )
    likeness_sampling_steps: int = setting(
        6, "Sampling steps of each image in the likeness steps.", min=1, soft_max=50, advanced=True
    )
    likeness_guidance: float = setting(
        5.0, "Guidance scale (CFG) of the images in the likeness steps.", min=0, soft_max=30, advanced=True
    )
    views: int = setting(
        3, "Maximum number of images whose mean face is used in a step.", min=1, soft_max=100, advanced=True
    )
    snr_gamma: float = setting(
        2.0, "Gamma of the min-SNR loss weights (arXiv 2303.09556).", above=0, soft_max=100, advanced=True
    )
    snr_scale: float = setting(5.0, "Upper bound of the min-SNR loss weights.", above=0, soft_max=100, advanced=True)
    weight_decay: float = learning_rate(1e-4, "Weight decay of AdamW.", advanced=True)
    dropout: float = setting(
        0.2, "Share of the predictor's hidden values that are dropped in training.", min=0, below=1, advanced=True
    )

    @property
    def text_batch_size(self) -> int:
        return 4 * self.batch_size

    def continued(self, heads: int, beta: float) -> EnhancerTrainConfig:
        """The settings of a training that starts from an Enhancer with these heads and beta, without text steps."""
        return replace(self, heads=heads, beta=beta, text_steps=0)

    def _check(self) -> None:
        self._require("likeness_steps", self.likeness_steps <= self.steps, "from 0 to all steps")


@dataclass(frozen=True)
class EnhancerRunConfig(Settings):
    """How often the training of an ID-Enhancer is saved and validated."""

    save_every: int = setting(200, "Steps between two saves of the training. 0: only when it is cancelled.", min=0)
    validate_every: int = setting(
        500,
        "Steps between two validations on people who are held out. When their likeness falls, the training ends at "
        "its best step. 0: no validation.",
        min=0,
        soft_max=100_000,
        advanced=True,
    )


@dataclass(frozen=True)
class RefineConfig(Settings):
    """How a person is drawn, compared and corrected.

    Attributes:
        prompts: of the images, with `{}` for the person; taken in turn.
        order: of the sampler, 1 or 2.
    """

    rounds: int = setting(
        3, "Number of corrections. A correction that lowers the likeness is dropped.", min=1, soft_max=20
    )
    num_images: int = setting(12, "Images drawn at first, and for each correction.", min=1, soft_max=64)
    resolution: int = _resolution()
    seed: int = setting(
        0, "Seed of the first image; the others count up. All rounds use the same seeds.", min=0, max=MAX_SEED
    )
    prompts: tuple[str, ...] = PORTRAIT_PROMPTS
    step_size: float = setting(
        0.5,
        "Share of the difference between the wanted and the drawn face that a correction makes up for. It is halved "
        "after a correction that did not help.",
        above=0,
        max=1,
        advanced=True,
    )
    sampling_steps: int = _sampling_steps(12)
    order: int = 2
    guidance: float = _guidance(min=0)
    sampling_batch_size: int = _sampling_batch_size()

    def _check(self) -> None:
        require_prompts(self.prompts or ("",), "person")

    @property
    def drawn(self) -> int:
        """Number of images in all."""
        return (self.rounds + 1) * self.num_images


def recombined(names: Sequence[str], count: int, known: Iterable[str] = (), seed: int = 0) -> tuple[str, ...]:
    """New names: the first word of one name and the rest of another, none of them in `names` or `known`.

    Raises:
        ConfigError: the names do not give so many.
    """
    parts = [name.split(maxsplit=1) for name in names if " " in name.strip()]
    first, last = (sorted(set(part)) for part in zip(*parts)) if parts else ([], [])
    existing, new = {*names, *known}, dict[str, None]()
    generator = random.Random(seed)
    if count > max(len(first) * len(last) - len(existing), 0):
        remedy = "Lower num_synthetic, or give more names."
        raise ConfigError(f"names that give {count} new ones", f"{len(names)} names", remedy)
    while len(new) < count:
        name = f"{generator.choice(first)} {generator.choice(last)}"
        if name not in existing:
            new[name] = None
    return tuple(new)
