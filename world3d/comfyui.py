"""The world in a ComfyUI's folders: a checkpoint for the stock loader, face models, people, photos, examples."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from diffusers import StableDiffusionPipeline
from PIL import Image

from idea_core.enhancers.pretrained import PretrainedEnhancer
from idea_core.errors import ConfigError
from idea_core.faces import encode_photos
from idea_core.files.digest import file_digest
from idea_core.headless.jobs.sources import FaceSource

from .examples import NAME, write_examples
from .widening.checkpoint import write_checkpoint
from .widening.enhancer import widen_enhancer

SCALE = 2  # the widened VAE doubles pixels
NETWORKS = ("det.onnx", "rec.onnx")


@dataclass(frozen=True, eq=False)
class Contents:
    """All that a ComfyUI needs of the world.

    Attributes:
        pipeline: the small base model.
        face_models: folder of ONNX files.
        photos: images by the name of their person.
    """

    pipeline: StableDiffusionPipeline
    face_models: Path
    enhancer: PretrainedEnhancer
    photos: Mapping[str, Sequence[Image.Image]]


def write_world(world: Contents, comfyui: Path) -> list[Path]:
    """Write the world's files below a ComfyUI's folder; their paths. Files of the same name are replaced.

    All names begin with `NAME`, so that nobody else's files are touched.

    Raises:
        ConfigError: no ComfyUI.
        OSError: a file could not be written.
    """
    models = comfyui / "models"
    if not models.is_dir():
        raise ConfigError(f"ComfyUI's folder, with models in it, at {comfyui}", "none", "Give the folder of main.py.")
    checkpoint = write_checkpoint(world.pipeline, models / "checkpoints" / f"{NAME}.safetensors")
    enhancer = widen_enhancer(world.enhancer, checkpoint.name, file_digest(checkpoint))
    written = [checkpoint, enhancer.save(models / "idea" / "enhancers" / f"{NAME}.safetensors")]
    pack = models / "insightface" / "models" / NAME
    pack.mkdir(parents=True, exist_ok=True)
    written += [Path(shutil.copy(world.face_models / network, pack)) for network in NETWORKS]
    for person, images in world.photos.items():
        written += _write_person(person, images, world, enhancer, comfyui)
    return [*written, *write_examples(comfyui)]


def _write_person(
    person: str, images: Sequence[Image.Image], world: Contents, enhancer: PretrainedEnhancer, comfyui: Path
) -> list[Path]:
    """The photos, and the person whom the ID-Enhancer makes of their faces."""
    photos, written = comfyui / "input", []
    photos.mkdir(exist_ok=True)
    for number, image in enumerate(images, 1):
        written.append(photos / f"{NAME}-{person}-{number}.png")
        size = image.width * SCALE, image.height * SCALE
        image.resize(size, Image.Resampling.BICUBIC).save(written[-1])
    engine = FaceSource(world.face_models, provider="cpu").load()
    embeds, _ = encode_photos(engine, [np.asarray(image.convert("RGB")) for image in images])
    made = enhancer.identity(person, embeds.mean)
    return [*written, made.save(comfyui / "models" / "idea" / f"{NAME}-{person}.safetensors")]
