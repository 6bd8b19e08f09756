"""Where a task's base model and face models come from: plain values that can be sent to other machines."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from ...diffusion.backbone import PRECISIONS
from ...errors import ConfigError, FaceError
from ...faces import FaceEngine, FacePack, find_packs, free_engines, load_engine
from ...faces.engines import build_engine
from ...faces.packs import onnx_files
from ...families import BASE_MODELS
from ...files.digest import Digest
from ...text.names import one_form


@dataclass(frozen=True)
class ModelSource:
    """A base model on disk.

    Attributes:
        path: folder of a diffusers pipeline, or a checkpoint in one file.
        dtype: one of `PRECISION_CHOICES`; "auto" is half precision on GPUs that have it.
        device: "auto", "cpu", "cuda", "cuda:1", "mps" …
        vae: file or folder of a VAE that replaces the model's own.
        prediction: "eps" or "v"; None: what the model says.
    """

    path: Path
    dtype: str = "auto"
    device: str = "auto"
    vae: Path | None = None
    prediction: str | None = None

    def absolute(self) -> ModelSource:
        """The same with absolute paths, for processes in other folders."""
        return dataclasses.replace(self, path=self.path.absolute(), vae=self.vae and self.vae.absolute())

    def load(self) -> Any:
        """The diffusers pipeline; the last two loaded are kept: a comparison may draw in another precision."""
        return _load_pipeline(self)

    def native_resolution(self) -> int:
        """Side in pixels of the images that the base model was trained on."""
        from ..diffusers.text import family_of

        pipeline = self.load()
        base = BASE_MODELS[family_of(pipeline)]
        return base.resolution if base.transformer else pipeline.unet.config.sample_size * pipeline.vae_scale_factor

    def chosen_dtype(self) -> str:
        """`dtype`, with "auto" decided for the device: bfloat16 only where the hardware does not emulate it."""
        if self.dtype != "auto":
            return self.dtype
        device = choose_device(self.device)
        if device.type != "cuda":
            return "fp32"
        native = torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)
        return "bf16" if native else "fp16"

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the model's and the VAE's files; "" if one of them cannot be read."""
        files, digest = [_model_files(path) for path in (self.path, self.vae) if path], Digest()
        try:
            for file in chain(*files):
                digest.add_file(file)
        except OSError:
            return ""
        return digest.hex() if all(files) else ""

    def provenance(self) -> dict[str, str]:
        """What a result's file says of its base model: file name and SHA-256."""
        return {"base_checkpoint": self.path.name, "base_hash": self.digest}


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
        """The same with absolute paths, for processes in other folders."""
        return dataclasses.replace(self, folder=self.folder and self.folder.absolute())

    def find(self) -> FacePack:
        """The face model pack.

        Raises:
            FaceError: none there; it lists the folders searched.
        """
        if self.folder and onnx_files(self.folder):
            return FacePack(self.folder.name, self.folder)
        roots = [self.folder] if self.folder else usual_face_folders()
        packs = find_packs([*roots, *(root.parent for root in roots if root.name == "models")])
        pack = self.pack and one_form(self.pack)
        if not packs or pack not in (None, *packs):
            searched = ", ".join(str(root / "models") for root in roots) or "the usual places"
            raise FaceError(
                f"a face model pack {self.pack or ''} in {searched}".replace("  ", " "),
                f"only {', '.join(packs)}" if packs else "none there",
                "Give the folder that holds the pack's .onnx files (for instance antelopev2) with --face-models.",
            )
        return packs[pack or next(iter(packs))]

    def other(self, pack: str) -> FaceSource:
        """Another pack, beside this one.

        Raises:
            FaceError: no such pack.
            ConfigError: it is the same pack.
        """
        own = self.folder and onnx_files(self.folder)
        other = dataclasses.replace(self, folder=self.folder.parent if self.folder and own else self.folder, pack=pack)
        if other.find().folder.resolve() == self.find().folder.resolve():
            raise ConfigError("two face model packs", f"{pack} twice", "Name another pack.")
        return other

    def load(self) -> FaceEngine:
        """The engine; the last one loaded is kept."""
        return load_engine(self.find(), self.provider)

    def build(self) -> FaceEngine:
        """An engine of its own, beside the one that is kept."""
        return build_engine(self.find(), self.provider)

    def digest(self) -> str:
        """SHA-256 of the pack's models, which are read once."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        digest = Digest()
        for path in self.find().files():
            digest.add_file(path)
        return digest.hex()


def usual_face_folders() -> list[Path]:
    """The usual folders of face model packs: ComfyUI's, and insightface's own."""
    try:
        home = [Path.home()]
    except RuntimeError:  # no such user, as in some containers
        home = []
    named = os.environ.get("COMFYUI_PATH")
    comfyui = [*([Path(named)] if named else []), *(place / "comfy" / "ComfyUI" for place in home)]
    return [*(place / "models" / "insightface" for place in comfyui), *(place / ".insightface" for place in home)]


def choose_device(device: str) -> torch.device:
    """The torch device; "auto" is the GPU if there is one, else the CPU.

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


@lru_cache(maxsize=2)
def _load_pipeline(source: ModelSource) -> Any:
    from ..diffusers import load_pipeline

    device = choose_device(source.device)
    return load_pipeline(source.path, PRECISIONS[source.chosen_dtype()], device, source.vae, source.prediction)


def forget_models() -> None:
    """Free the pipeline and the face models that are kept."""
    _load_pipeline.cache_clear()
    free_engines()


def _model_files(path: Path) -> list[Path]:
    """The file itself, or the folder's weights, settings and vocabularies."""
    endings = (".safetensors", ".bin", ".json", ".txt")
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.suffix in endings)
