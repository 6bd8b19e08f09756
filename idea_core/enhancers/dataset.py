"""Images that a base model drew of people whom it knows by name: the data set of an ID-Enhancer."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..errors import ConfigError, IdentityFileError, TrainingError, require_shape
from ..files.digest import digest_of
from ..files.format import FileFormat
from ..files.tensorfile import write_atomically, write_tensors
from ..files.textfile import parse_json
from ..method.modules import ARCFACE_WIDTH
from ..text.captions import PLACEHOLDER
from .config import MIN_KEPT, DatasetConfig, Split

logger = logging.getLogger(__name__)

FORMAT = FileFormat("id-ea-person-pictures", "2", "Delete the file; its images are drawn again.")
MANIFEST = "manifest.json"
_NO_WORD = re.compile(r"\W+")


@dataclass(frozen=True, eq=False)
class PeoplePictures:
    """Images of several people.

    Attributes:
        latents: (N, c, h, w), scaled as the UNet wants them.
        faces: (N, 512), L2-normalised embeddings of the faces in them.
        people: (N,) index of the person in each; every person at least twice.
        prompts: prompt of each image, with `{}` for the person.
        names: one for each person.
    """

    latents: Tensor
    faces: Tensor
    people: Tensor
    prompts: Sequence[str]
    names: Sequence[str]

    def __post_init__(self) -> None:
        count = len(self.latents)
        require_shape("faces", self.faces, count, ARCFACE_WIDTH)
        require_shape("people", self.people, count)
        if len(self.prompts) != count or not all(PLACEHOLDER in prompt for prompt in self.prompts):
            remedy = "Give one for each image."
            raise TrainingError(f"{count} prompts with {PLACEHOLDER} in them", f"{len(self.prompts)}", remedy)
        single = (self.people.bincount()[self.people] < 2).nonzero()
        if len(single) or not count:
            got = f"one of person {int(self.people[single[0]])}" if count else "no image"
            raise TrainingError("two images of each person or more", got, "Add images.")


@dataclass(frozen=True)
class PeopleDataset:
    """A folder with one file for each person, named after the person, and a manifest of the settings.

    A person's images depend only on the settings and the name. Whoever else is drawn changes them only by rounding.

    Attributes:
        fingerprint: `config.fingerprint(...)`; all images of a folder have the same.
    """

    folder: Path
    config: DatasetConfig
    fingerprint: str

    def file_of(self, number: int) -> Path:
        name = self.config.all_names[number]
        return self.folder / "people" / f"{_NO_WORD.sub('_', name)[:48]}-{number_of(name):08x}.safetensors"

    def pictures(self, split: Split = "train") -> PeoplePictures:
        """The images of a split: those whose face agrees with the person's others.

        Raises:
            TrainingError: nobody has enough such images.
        """
        latents: list[Tensor] = []
        faces: list[Tensor] = []
        people: list[int] = []
        captions: list[str] = []
        names: list[str] = []
        for number in self.config.ids_of(split):
            stored = self.stored(number)
            if stored is None:
                continue
            tensors, prompts = stored
            kept = self._kept(tensors["faces"])
            if len(kept) >= MIN_KEPT:
                latents.append(tensors["latents"][kept])
                faces.append(tensors["faces"][kept].float())
                people += [len(names)] * len(kept)
                captions += [prompts[index] for index in kept.tolist()]
                names.append(self.config.all_names[number])
        if not names:
            raise self.nobody("none")
        return PeoplePictures(torch.cat(latents), torch.cat(faces), torch.tensor(people), captions, names)

    def is_usable(self, number: int) -> bool:
        """Whether enough images of a person agree."""
        stored = self.stored(number)
        return stored is not None and len(self._kept(stored[0]["faces"])) >= MIN_KEPT

    def nobody(self, got: str) -> TrainingError:
        """The error that nobody is usable."""
        return TrainingError(
            f"people with {MIN_KEPT} images that agree, in {self.folder}",
            got,
            "Use names that this base model can draw, or lower min_similarity.",
        )

    def _kept(self, faces: Tensor) -> Tensor:
        """Indices of a person's images whose faces (P, 512) agree with the others."""
        return _agreeing(faces.float(), self.config.min_similarity).nonzero()[:, 0]

    def stored(self, number: int) -> tuple[dict[str, Tensor], list[str]] | None:
        """A person's tensors and prompts; None if the file is missing, damaged, or of other settings."""
        try:
            with FORMAT.reading(self.file_of(number)) as (tensors, metadata):
                same = metadata["fingerprint"] == self.fingerprint and metadata["name"] == self.config.all_names[number]
                return (tensors, parse_json(metadata["prompts"])) if same else None
        except FileNotFoundError:
            return None
        except IdentityFileError as error:
            logger.warning("ID-EA: %s cannot be read; its images are drawn again. %s", self.file_of(number), error)
            return None

    def write(self, number: int, latents: Tensor, faces: Tensor, prompts: Sequence[str]) -> None:
        """Write a person's file, in one move.

        Args:
            latents: (P, c, h, w).
            faces: (P, 512), L2-normalised; zeros for an image without exactly one face.
            prompts: prompt of each image, with `{}` for the name.
        """
        name = self.config.all_names[number]
        metadata = {"fingerprint": self.fingerprint, "name": name, "prompts": json.dumps(prompts)}
        write_tensors(self.file_of(number), {"latents": latents, "faces": faces}, FORMAT.metadata(metadata))

    def write_manifest(self) -> None:
        """Claim the folder; images of other settings, which took hours, are not overwritten.

        Raises:
            ConfigError: the folder holds images of another base model, or of other settings.
        """
        try:
            manifest = parse_json((self.folder / MANIFEST).read_text("utf-8"))
        except (OSError, ValueError):
            manifest = {"fingerprint": self.fingerprint}  # unreadable; each image file has the fingerprint too
        if manifest.get("fingerprint") != self.fingerprint and any((self.folder / "people").glob("*.safetensors")):
            raise ConfigError(
                "images of this base model, these face models and these settings",
                f"others in {self.folder}",
                "Choose another folder or name, or delete that folder.",
            )
        manifest = {**self.config.as_dict(), "fingerprint": self.fingerprint, "format_version": FORMAT.version}
        text = json.dumps(manifest, indent=1, ensure_ascii=False).encode()
        write_atomically(self.folder / MANIFEST, lambda file: file.write(text))


def number_of(name: str) -> int:
    """A hash of a name, below 2³²."""
    return int(digest_of(name)[:8], 16)


def _agreeing(faces: Tensor, min_similarity: float) -> Tensor:
    """Which faces (P, 512) are similar enough to the mean of the others."""
    has_face = faces.norm(dim=1) > 0
    others = normalize(faces.sum(0) - faces, dim=1)
    return has_face & ((faces * others).sum(1) >= min_similarity)
