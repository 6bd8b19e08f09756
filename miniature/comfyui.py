"""The drawn world in a ComfyUI's folders: a checkpoint for the stock loader, face models, an ID-Enhancer, photos."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffusers import StableDiffusionPipeline
from PIL import Image

from idea_core.enhancers.pretrained import PretrainedEnhancer
from idea_core.errors import ConfigError
from idea_core.files.digest import file_digest

from .widening.checkpoint import write_checkpoint
from .widening.enhancer import widen_enhancer

NAME = "idea-world"
SCALE = 2  # the widened VAE doubles pixels


@dataclass(frozen=True, eq=False)
class World:
    """All that a ComfyUI needs of a drawn world.

    Attributes:
        pipeline: the small base model.
        face_models: folder of ONNX files.
        photos: images by the name of their person.
    """

    pipeline: StableDiffusionPipeline
    face_models: Path
    enhancer: PretrainedEnhancer
    photos: Mapping[str, Sequence[Image.Image]]


def write_world(world: World, comfyui: Path) -> list[Path]:
    """Write the world's files below a ComfyUI's folder; their paths. An existing file of the same name is replaced.

    Raises:
        ConfigError: no ComfyUI.
        OSError: a file could not be written.
    """
    models, photos = comfyui / "models", comfyui / "input"
    if not models.is_dir():
        raise ConfigError(f"ComfyUI's folder, with models in it, at {comfyui}", "none", "Give the folder of main.py.")
    checkpoint = write_checkpoint(world.pipeline, models / "checkpoints" / f"{NAME}.safetensors")
    enhancer = widen_enhancer(world.enhancer, checkpoint.name, file_digest(checkpoint))
    written = [checkpoint, enhancer.save(models / "idea" / "enhancers" / f"{NAME}.safetensors")]
    pack = models / "insightface" / "models" / NAME
    pack.mkdir(parents=True, exist_ok=True)
    for file in sorted(world.face_models.glob("*.onnx")):
        written.append(Path(shutil.copy(file, pack)))
    photos.mkdir(exist_ok=True)
    for person, images in world.photos.items():
        for number, image in enumerate(images, 1):
            written.append(photos / f"{NAME}-{person}-{number}.png")
            size = image.width * SCALE, image.height * SCALE
            image.resize(size, Image.Resampling.NEAREST).save(written[-1])
    return written
