"""Where a task's base model, face models and photos come from. All are plain values, so that they travel."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ...diffusion.backbone import PRECISIONS
from ...errors import ConfigError, FaceError
from ...faces import FaceEngine, FacePack, FaceSettings, IdEmbeds, encode_photos, find_packs, free_engines, load_engine
from ...faces.embeds_file import load_embeds
from ...faces.packs import onnx_files
from ...faces.photos import bucket_of, find_photos, fit, read_photo
from ...faces.pictures import Cut, crop_face, face_mask
from ...files.textfile import read_text
from ...settings import Settings, setting
from ...text.names import as_on_disk, one_form
from ...training.batches import Photos

CROPS = ("face", "upright", "center", "whole")
FACE_CROPS = ("face", "upright")
_BLOCK = 1 << 24


@dataclass(frozen=True)
class ModelSource:
    """A base model on disk.

    Attributes:
        path: folder of a diffusers pipeline, or a checkpoint in one file.
        dtype: one of `PRECISION_CHOICES`; "auto" takes half precision on GPUs that have it.
        device: "auto", "cpu", "cuda", "cuda:1", "mps" …
        vae: a VAE's file or folder, in place of the model's own.
        prediction: "eps" or "v"; None: what the model says.
    """

    path: Path
    dtype: str = "auto"
    device: str = "auto"
    vae: Path | None = None
    prediction: str | None = None

    def absolute(self) -> ModelSource:
        """The same, whatever folder another process works in."""
        return dataclasses.replace(self, path=self.path.absolute(), vae=self.vae and self.vae.absolute())

    def load(self):
        """The pipeline; the last one loaded is kept."""
        return _load_pipeline(self)

    def chosen_dtype(self) -> str:
        """`dtype`, with "auto" decided for the device."""
        return self.dtype if self.dtype != "auto" else _best_dtype(choose_device(self.device))

    def digest(self) -> str:
        """SHA-256 of the file, or of the weight files in the folder, of the VAE too; "" for what cannot be read."""
        digest = hashlib.sha256()
        for path in (self.path, self.vae):
            if path is not None and not _add_files(digest, path):
                return ""
        return digest.hexdigest()


@dataclass(frozen=True)
class FaceSource:
    """Face models on disk.

    Attributes:
        folder: a pack's own folder or an insightface folder with packs in `models`; None: the usual places.
        pack: name of the pack; None: the first one.
        provider: one of `PROVIDER_CHOICES`.
    """

    folder: Path | None = None
    pack: str | None = None
    provider: str = "auto"

    def absolute(self) -> FaceSource:
        """The same, whatever folder another process works in."""
        return dataclasses.replace(self, folder=self.folder and self.folder.absolute())

    def find(self) -> FacePack:
        """The face model pack.

        Raises:
            FaceError: none there; it lists the folders searched.
        """
        roots = [self.folder] if self.folder else usual_face_folders()
        if self.folder and onnx_files(self.folder):
            return FacePack(self.folder.name, self.folder)
        packs = find_packs([*roots, *([self.folder.parent] if self.folder and self.folder.name == "models" else [])])
        pack = self.pack and one_form(self.pack)
        if not packs or pack not in (None, *packs):
            searched = ", ".join(str(root / "models") for root in roots) or "the usual places"
            raise FaceError(
                f"a face model pack {self.pack or ''} in {searched}".replace("  ", " "),
                f"only {', '.join(packs)}" if packs else "none there",
                "Give the folder that holds the pack's .onnx files (for instance antelopev2) with --face-models.",
            )
        return packs[pack or next(iter(packs))]

    def load(self) -> FaceEngine:
        """The engine; the last one loaded is kept."""
        return load_engine(self.find(), self.provider)

    def digest(self) -> str:
        """SHA-256 of the pack's models."""
        digest = hashlib.sha256()
        for path in self.find().files():
            _add_files(digest, path)
        return digest.hexdigest()


class Prepared(NamedTuple):
    """Photos as a training sees them."""

    photos: tuple[Photos, ...]  # one entry a size
    embeds: IdEmbeds


@dataclass(frozen=True)
class PhotoSource(Settings):
    """A person's photos, and how they are cut.

    A text file beside a photo, of the same name, says what else is to be seen in it (`with_note`).

    Attributes:
        places: photos, or folders of photos.
        id_embeds: the person's face embeddings from `save_embeds`; None: computed from the photos.
    """

    places: tuple[Path, ...] = ()
    id_embeds: Path | None = None
    crop: str = setting(
        "face",
        "Part of each photo to train on. face: the face with room around it. upright: the same with level eyes. "
        "center: the middle square. whole: the photo in about its own shape.",
        choices=CROPS,
    )
    resolution: int = setting(512, "Side in pixels to train at.", min=8, multiple_of=8)
    focus: float = setting(
        0.0,
        "How much less the surroundings of a cut-out face count: 0 not at all, 1 entirely.",
        min=0,
        max=1,
    )

    def _check(self) -> None:
        if self.focus and self.crop not in FACE_CROPS:
            raise ConfigError(f"no focus with crop {self.crop}", str(self.focus), "Use crop face or upright.")

    @property
    def needs_faces(self) -> bool:
        """Whether face models are used."""
        return self.crop in FACE_CROPS or self.id_embeds is None

    def prepare(self, faces: FaceSource) -> Prepared:
        """Read, find faces, cut.

        Raises:
            FaceError: no photo, an unreadable one, or one without a face; it names the file.
        """
        paths = find_photos(self.places)
        photos = [read_photo(path) for path in paths]
        found = None
        if self.needs_faces:
            embeds, found = encode_named(faces.load(), photos, paths)
        if self.id_embeds is not None:
            embeds = load_embeds(self.id_embeds)
        masks = None
        if self.crop in FACE_CROPS:
            how = Cut(self.resolution, upright=self.crop == "upright")
            cut = [crop_face(f.photo, f.chosen, how) for f in found]
            if self.focus:
                masks = [1 - self.focus * (1 - face_mask(f.chosen, how)) for f in found]
        else:
            cut = [fit(photo, *self._size_of(photo)) for photo in photos]
        return Prepared(_by_size(cut, paths, masks), embeds)

    def _size_of(self, photo: np.ndarray) -> tuple[int, int]:
        """Width and height that a photo is trained at."""
        height, width = photo.shape[:2]
        return bucket_of(width, height, self.resolution) if self.crop == "whole" else (self.resolution, self.resolution)

    def digest(self) -> str:
        """SHA-256 of the photos, of their texts and of the face embeddings."""
        digest = hashlib.sha256()
        photos = find_photos(self.places)
        for path in [*photos, *([self.id_embeds] if self.id_embeds else [])]:
            digest.update(Path(path).read_bytes())
        digest.update("\0".join(map(_note, photos)).encode())
        return digest.hexdigest()


def _by_size(cut: list[np.ndarray], paths: list[Path], masks: list[np.ndarray] | None) -> tuple[Photos, ...]:
    sizes: dict[tuple[int, ...], list[int]] = {}
    for number, photo in enumerate(cut):
        sizes.setdefault(photo.shape, []).append(number)
    return tuple(
        Photos(
            images=torch.from_numpy(np.stack([cut[number] for number in same])).float() / 255,
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
):
    """`encode_photos`, with errors that name the file."""
    try:
        return encode_photos(engine, photos, settings)
    except FaceError as error:
        names = [f"{number}: {path.name}" for number, path in enumerate(paths)]
        raise FaceError(error.expected, error.got, f"{error.remedy} Photos: {', '.join(names)}.") from None


def usual_face_folders() -> list[Path]:
    """Where face model packs usually lie: insightface's own folder, and ComfyUI's."""
    named, home = os.environ.get("COMFYUI_PATH"), _home()
    comfyui = [*([Path(named)] if named else []), *(place / "comfy" / "ComfyUI" for place in home)]
    return [*(place / "models" / "insightface" for place in comfyui), *(place / ".insightface" for place in home)]


def _home() -> list[Path]:
    """The user's own folder; none where there is no such user, as in some containers."""
    try:
        return [Path.home()]
    except RuntimeError:
        return []


def choose_device(device: str) -> torch.device:
    """ "auto" is the GPU that is there, else the CPU.

    Raises:
        ConfigError: no such device.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError("a device that torch can use", f"{device} ({error})".splitlines()[0], "Use cpu.") from None
    return torch.device(device)


def _best_dtype(device: torch.device) -> str:
    """Half precision on CUDA: bfloat16 where the hardware computes in it, not only imitates it."""
    if device.type != "cuda":
        return "fp32"
    native = torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)
    return "bf16" if native else "fp16"


@lru_cache(maxsize=1)
def _load_pipeline(source: ModelSource):
    from ..diffusers import load_pipeline

    device = choose_device(source.device)
    return load_pipeline(source.path, PRECISIONS[source.chosen_dtype()], device, source.vae, source.prediction)


def forget_models() -> None:
    """Free what is kept."""
    _load_pipeline.cache_clear()
    free_engines()


def _add_files(digest, path: Path) -> bool:
    endings = (".safetensors", ".bin", ".json", ".txt")
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix in endings)
    try:
        for file in files:
            with open(file, "rb") as content:
                while block := content.read(_BLOCK):
                    digest.update(block)
    except OSError:
        return False
    return bool(files)
