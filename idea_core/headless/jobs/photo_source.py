"""Where a task's photos of a person come from, and how they are cropped."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ...errors import ConfigError, FaceError
from ...faces import FaceEngine, FacePhoto, FaceSettings, IdEmbeds, encode_photos
from ...faces.embeds import load_embeds
from ...faces.photos import bucket_of, find_photos, fit, read_photo
from ...faces.pictures import Cut, crop_face, face_mask
from ...files.digest import Digest
from ...files.textfile import read_text
from ...settings import Settings, setting
from ...text.names import as_on_disk, one_form
from ...training.batches import Photos
from .sources import FaceSource

CROPS = ("face", "upright", "center", "whole")
FACE_CROPS = ("face", "upright")


class Prepared(NamedTuple):
    """Photos as a training uses them."""

    photos: tuple[Photos, ...]  # one entry per size
    embeds: IdEmbeds


@dataclass(frozen=True)
class PhotoSource(Settings):
    """A person's photos, and how they are cropped.

    A text file of a photo's name beside it describes what else the photo shows (`with_note`).

    Attributes:
        places: photos, or folders of photos.
        id_embeds: file of the person's face embeddings from `save_embeds`; None: computed from the photos.
    """

    places: tuple[Path, ...] = ()
    id_embeds: Path | None = None
    crop: str = setting(
        "face",
        "Part of each photo to train on. face: the face with room around it. upright: the same with level eyes. "
        "center: the middle square. whole: the photo in about its own shape.",
        choices=CROPS,
    )
    resolution: int = setting(512, "Size in pixels to train at.", min=8, multiple_of=8)
    focus: float = setting(
        0.0,
        "Share by which the surroundings of a face crop count less. 0: they count fully. 1: not at all.",
        min=0,
        max=1,
    )

    def _check(self) -> None:
        if self.focus and self.crop not in FACE_CROPS:
            raise ConfigError(f"no focus with crop {self.crop}", str(self.focus), "Use crop face or upright.")

    @property
    def needs_faces(self) -> bool:
        """Whether face models are needed."""
        return self.crop in FACE_CROPS or self.id_embeds is None

    def prepare(self, faces: FaceSource) -> Prepared:
        """Read the photos, find the faces, crop.

        Raises:
            FaceError: no photo, an unreadable one, or one without a face; it names the file.
        """
        paths, masks = find_photos(self.places), None
        photos = [read_photo(path) for path in paths]
        if self.needs_faces:
            embeds, encoded = encode_named(faces.load(), photos, paths)
        if self.id_embeds is not None:
            embeds = load_embeds(self.id_embeds)
        if self.crop in FACE_CROPS:
            how = Cut(self.resolution, upright=self.crop == "upright")
            chosen = [photo.chosen for photo in encoded if photo.chosen]  # of all: none is skipped here
            crops = [crop_face(photo, face, how) for photo, face in zip(photos, chosen)]
            if self.focus:
                masks = [1 - self.focus * (1 - face_mask(face, how)) for face in chosen]
        elif self.crop == "whole":
            crops = [fit(photo, *bucket_of(photo.shape[1], photo.shape[0], self.resolution)) for photo in photos]
        else:
            crops = [fit(photo, self.resolution, self.resolution) for photo in photos]
        return Prepared(_by_size(crops, paths, masks), embeds)

    def digest(self) -> str:
        """SHA-256 of the photos, their texts and the face embeddings."""
        digest, photos = Digest(), find_photos(self.places)
        for path in [*photos, *([self.id_embeds] if self.id_embeds else [])]:
            digest.add_file(path)
        return digest.add_text("\0".join(map(_note, photos))).hex()


def _by_size(crops: list[np.ndarray], paths: list[Path], masks: list[np.ndarray] | None) -> tuple[Photos, ...]:
    sizes: dict[tuple[int, ...], list[int]] = {}
    for number, photo in enumerate(crops):
        sizes.setdefault(photo.shape, []).append(number)
    return tuple(
        Photos(
            images=torch.from_numpy(np.stack([crops[number] for number in same])).float() / 255,
            notes=tuple(_note(paths[number]) for number in same),
            masks=None if masks is None else torch.from_numpy(np.stack([masks[number] for number in same])),
            names=tuple(paths[number].name for number in same),
        )
        for same in sizes.values()
    )


def _note(photo: Path) -> str:
    """The text beside a photo, in one line."""
    file = as_on_disk(photo.with_suffix(".txt"))
    return " ".join(one_form(read_text(file)).split()) if file.is_file() else ""


def encode_named(
    engine: FaceEngine, photos: list[np.ndarray], paths: Iterable[Path], settings: FaceSettings = FaceSettings()
) -> tuple[IdEmbeds, list[FacePhoto]]:
    """`encode_photos`, with errors that name the file."""
    try:
        return encode_photos(engine, photos, settings)
    except FaceError as error:
        names = [f"{number}: {path.name}" for number, path in enumerate(paths)]
        raise FaceError(error.expected, error.got, f"{error.remedy} Photos: {', '.join(names)}.") from None
