"""Pictures that a base model makes of people whom it knows by name, on disk: what an ID-Enhancer learns from."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..diffusion.backbone import Backbone
from ..errors import ConfigError, IdentityFileError, TrainingError
from ..files.digest import digest_of
from ..files.format import FileFormat
from ..files.tensorfile import write_atomically, write_tensors
from ..files.textfile import parse_json
from .config import LEAST_KEPT, DatasetConfig, Split
from .drawing import ImageSampler
from .pictures import PeoplePictures

logger = logging.getLogger(__name__)

FORMAT = FileFormat("id-ea-person-pictures", "2", "Delete the file; it is drawn again.")
MANIFEST = "manifest.json"
_NO_WORD = re.compile(r"\W+")


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
            if int(kept.sum()) >= LEAST_KEPT:
                chosen = kept.nonzero()[:, 0]
                people = torch.full((len(chosen),), len(names))
                captions = [prompts[index] for index in chosen.tolist()]
                parts.append((tensors["latents"][chosen], tensors["faces"][chosen].float(), people, captions))
                names.append(self.config.all_names[number])
        if not parts:
            raise TrainingError(
                f"people with {LEAST_KEPT} pictures that agree, in {self.folder}",
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
            logger.warning("ID-EA: %s is drawn anew. %s", self.file_of(number), error)
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


def number_of(name: str) -> int:
    """Always the same for a name, and hardly ever that of another one; below 2 to the 32nd."""
    return int(digest_of(name)[:8], 16)


def _agreeing(faces: Tensor, min_similarity: float) -> Tensor:
    """Which faces (P, 512) are one person's: near enough to the mean of the others."""
    has_face = faces.norm(dim=1) > 0
    others = normalize(faces.sum(0) - faces, dim=1)
    return has_face & ((faces * others).sum(1) >= min_similarity)
