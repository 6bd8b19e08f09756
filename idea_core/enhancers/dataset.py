"""Pictures that a base model makes of people whom it knows by name, on disk: what an ID-Enhancer learns from."""

from __future__ import annotations

import json
import logging
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from math import isfinite
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..diffusion.backbone import Backbone
from ..errors import ConfigError, IdentityFileError, TrainingError
from ..files.digest import Digest, digest_of
from ..files.format import FileFormat
from ..files.tensorfile import write_atomically, write_tensors
from ..files.textfile import parse_json
from ..method.anchor import celebrity_names
from ..text.captions import PORTRAIT_PROMPTS, require_prompts
from ..training.config import Settings
from .drawing import ImageSampler
from .pictures import PeoplePictures

FORMAT = FileFormat("id-ea-person-pictures", "2", "Delete the file; it is drawn again.")
Split = Literal["train", "val"]
MANIFEST = "manifest.json"
_NO_WORD = re.compile(r"\W+")
_LEAST_KEPT = 3  # pictures of a person; the face in one, the picture in another, and one to agree with them


@dataclass(frozen=True)
class DatasetConfig(Settings):
    """Whose pictures are made, and how.

    Attributes:
        names: of people whom the base model can draw.
        num_synthetic: so many more people, who have only names (`recombined`): where a base model draws one face for
            such a name, there is one more person to learn from.
        prompts: with `{}` for the name.
        images_per_person: pictures of each.
        resolution: their side in pixels.
        sampling_steps: of each.
        guidance: scale of classifier-free guidance.
        seed: added to those of all pictures.
        sampling_batch_size: pictures sampled together; it changes no picture but for rounding.
        min_similarity: least cosine of a picture's face to the mean face of the person's other pictures.
        val_fraction: share of the names, the last ones, that only a validation uses.
    """

    names: tuple[str, ...] = field(default_factory=celebrity_names)
    num_synthetic: int = 0
    prompts: tuple[str, ...] = PORTRAIT_PROMPTS
    images_per_person: int = 6
    resolution: int = 512
    sampling_steps: int = 25
    guidance: float = 7.5
    seed: int = 0
    sampling_batch_size: int = 4
    min_similarity: float = 0.4
    val_fraction: float = 0.05

    def __post_init__(self):
        self._require("num_synthetic", self.num_synthetic >= 0, "at least 0")
        self._require("images_per_person", self.images_per_person >= _LEAST_KEPT, f"at least {_LEAST_KEPT}")
        for name in ("sampling_steps", "sampling_batch_size"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        self._require("resolution", self.resolution >= 8 and self.resolution % 8 == 0, "a number that 8 divides")
        for name in ("guidance", "min_similarity"):
            self._require(name, isfinite(getattr(self, name)), "a finite number")
        self._require("val_fraction", 0 <= self.val_fraction < 1, "from 0 to below 1")
        require_prompts(self.prompts, "name")

    def fingerprint(self, model: str, faces: str) -> str:
        """SHA-256 of all that a person's pictures depend on.

        Args:
            model: digest of the base model and its precision.
            faces: digest of the face models.
        """
        settings = {
            "model": model,
            "faces": faces,
            "prompts": self.prompts,
            "images_per_person": self.images_per_person,
            "resolution": self.resolution,
            "sampling_steps": self.sampling_steps,
            "guidance": self.guidance,
            "seed": self.seed,
        }
        return Digest().add_json(settings).hex()

    @cached_property
    def all_names(self) -> tuple[str, ...]:
        """The names, and behind them the invented ones, which no one held out has lent a part to."""
        return self.names + recombined(self.names[: self._split], self.num_synthetic, self.names)

    def ids_of(self, split: Split) -> list[int]:
        """Places in `all_names` of the people to train on ("train") or to validate with ("val")."""
        if split == "val":
            return list(range(self._split, len(self.names)))
        return [*range(self._split), *range(len(self.names), len(self.all_names))]

    @property
    def _split(self) -> int:
        return len(self.names) - round(len(self.names) * self.val_fraction)


@dataclass(frozen=True)
class PeopleDataset:
    """One file a person, called after the person, and a manifest of settings.

    A person's pictures depend on the settings and the name alone, not on whoever else is drawn, but for rounding.

    Attributes:
        fingerprint: `config.fingerprint(...)`; a folder holds pictures of one alone.
    """

    folder: Path
    config: DatasetConfig
    fingerprint: str

    def file_of(self, number: int) -> Path:
        name = self.config.all_names[number]
        return self.folder / "people" / f"{_NO_WORD.sub('_', name)[:48]}-{number_of(name):08x}.safetensors"

    def image_sampler(self, backbone: Backbone) -> ImageSampler:
        """Who draws as these pictures are drawn."""
        config = self.config
        return ImageSampler(
            backbone, config.resolution, config.sampling_steps, config.guidance, config.sampling_batch_size
        )

    def pictures(self, split: Split = "train") -> PeoplePictures:
        """What was drawn, as far as it is of use, of those to learn from or of those held out.

        Raises:
            TrainingError: too few people.
        """
        parts, names = [], []
        for number in self.config.ids_of(split):
            stored = self.stored(number)
            if stored is None:
                continue
            tensors, prompts = stored
            kept = _agreeing(tensors["faces"].float(), self.config.min_similarity)
            if int(kept.sum()) >= _LEAST_KEPT:
                chosen = kept.nonzero()[:, 0]
                people = torch.full((len(chosen),), len(names))
                captions = [prompts[index] for index in chosen.tolist()]
                parts.append((tensors["latents"][chosen], tensors["faces"][chosen].float(), people, captions))
                names.append(self.config.all_names[number])
        if not parts:
            raise TrainingError(
                f"people with {_LEAST_KEPT} pictures that agree, in {self.folder}",
                "none",
                "Use names that this base model can draw, or lower min_similarity.",
            )
        latents, faces, people, captions = zip(*parts)
        return PeoplePictures(torch.cat(latents), torch.cat(faces), torch.cat(people), list(chain(*captions)), names)

    def stored(self, number: int) -> tuple[dict[str, Tensor], list[str]] | None:
        """A person's pictures; None if they are not there, damaged, or of other settings."""
        try:
            with FORMAT.reading(self.file_of(number)) as (tensors, metadata):
                same = metadata["fingerprint"] == self.fingerprint and metadata["name"] == self.config.all_names[number]
                return (tensors, parse_json(metadata["prompts"])) if same else None
        except FileNotFoundError:
            return None
        except IdentityFileError as error:
            logging.warning("ID-EA: %s is drawn anew. %s", self.file_of(number), error)
            return None

    def write(self, number: int, latents: Tensor, faces: Tensor, prompts: Sequence[str]) -> None:
        """A person's pictures, in one move.

        Args:
            latents: (P, c, h, w).
            faces: (P, 512), L2-normalised; zeros where there is not one face.
            prompts: of each picture, with `{}` for the name.
        """
        name = self.config.all_names[number]
        metadata = {"fingerprint": self.fingerprint, "name": name, "prompts": json.dumps(prompts)}
        write_tensors(self.file_of(number), {"latents": latents, "faces": faces}, FORMAT.metadata(metadata))

    def write_manifest(self) -> None:
        """Write the manifest of a folder that is to hold these pictures; those that took hours are not overwritten.

        Raises:
            ConfigError: the folder holds pictures of another base model, or of other settings.
        """
        try:
            manifest = parse_json((self.folder / MANIFEST).read_text("utf-8"))
        except (OSError, ValueError):
            manifest = {"fingerprint": self.fingerprint}  # lost: each file says it too
        if manifest.get("fingerprint") != self.fingerprint and any((self.folder / "people").glob("*.safetensors")):
            raise ConfigError(
                "pictures of this base model, these face models and these settings",
                f"others in {self.folder}",
                "Choose another folder or name, or delete that folder.",
            )
        manifest = {**self.config.as_dict(), "fingerprint": self.fingerprint, "format_version": FORMAT.version}
        text = json.dumps(manifest, indent=1, ensure_ascii=False).encode()
        write_atomically(self.folder / MANIFEST, lambda file: file.write(text))


def recombined(names: Sequence[str], count: int, known: Iterable[str] = (), seed: int = 0) -> tuple[str, ...]:
    """First words of names before the rest of other names, none of them known.

    Raises:
        ConfigError: the names do not give so many.
    """
    parts = [name.split(maxsplit=1) for name in names if " " in name.strip()]
    first, last = (sorted(set(part)) for part in zip(*parts)) if parts else ([], [])
    known, new = {*names, *known}, dict[str, None]()
    generator = random.Random(seed)
    if count > len(first) * len(last) - len(known):
        raise ConfigError(
            f"names that give {count} new ones", f"{len(names)} names", "Invent fewer, or give more names."
        )
    while len(new) < count:
        name = f"{generator.choice(first)} {generator.choice(last)}"
        if name not in known:
            new[name] = None
    return tuple(new)


def number_of(name: str) -> int:
    """Always the same for a name, and hardly ever that of another one; below 2 to the 32nd."""
    return int(digest_of(name)[:8], 16)


def _agreeing(faces: Tensor, min_similarity: float) -> Tensor:
    """Which faces (P, 512) are one person's: near enough to the mean of the others."""
    has_face = faces.norm(dim=1) > 0
    others = normalize(faces.sum(0) - faces, dim=1)
    return has_face & ((faces * others).sum(1) >= min_similarity)
