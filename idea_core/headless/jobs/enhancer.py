"""An Enhancer across people, from names that a base model can draw to a file, on diffusers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor

from ...enhancers.config import DatasetConfig, EnhancerTrainConfig
from ...enhancers.dataset import PeopleDataset
from ...enhancers.drawing import draw_people
from ...enhancers.pretrained import PretrainedEnhancer
from ...enhancers.run import EnhancerSpec, require_trainable, train_enhancer, validate
from ...files.digest import digest_of
from ...images import to_pixels
from ...training.output import Output
from ...training.run import OnProgress
from ..diffusers import DiffusersBackbone
from .sources import FaceSource, ModelSource


@dataclass(frozen=True)
class PeopleJob:
    """Pictures of people whom the base model knows by name, and what is learned from them.

    Attributes:
        folder: for the images, and a strip of each person's to look at.
    """

    folder: Path
    model: ModelSource
    faces: FaceSource = FaceSource()
    config: DatasetConfig = DatasetConfig()

    def open(self) -> PeopleDataset:
        """The images' folder."""
        model = digest_of(self.model.digest, self.model.chosen_dtype(), str(self.model.prediction))
        return PeopleDataset(self.folder, self.config, self.config.fingerprint(model, self.faces.digest()))

    def draw(self, people: PeopleDataset, shard: tuple[int, int] = (0, 1)) -> Iterator[int]:
        """Make the pictures that are not there yet; each person's number."""
        backbone = DiffusersBackbone(self.model.load())
        for number, images in draw_people(people, backbone, self.faces.load(), shard):
            if images is not None:
                _strip(images).save(people.file_of(number).with_suffix(".jpg"), quality=85)
            yield number

    def require_trainable(self, config: EnhancerTrainConfig, start: PretrainedEnhancer | None) -> None:
        """`enhancers.run.require_trainable` on this base model."""
        backbone = DiffusersBackbone(self.model.load())
        require_trainable(backbone, self.faces.load(), config, start, self.model.path.name, self.model.digest)

    def train(self, spec: EnhancerSpec, path: Path, save_every: int, on_progress: OnProgress) -> PretrainedEnhancer:
        """`train_enhancer` on this base model; the file at `path` has its name and digest."""
        base = {"base_checkpoint": self.model.path.name, "base_hash": self.model.digest}
        output = Output(path, spec.fingerprint, save_every, base=lambda: base)
        return train_enhancer(DiffusersBackbone(self.model.load()), spec, self.faces.load(), output, on_progress)

    def evaluate(self, people: PeopleDataset, enhancer: PretrainedEnhancer) -> Iterator[dict[str, str | float]]:
        """All people held out, measured."""
        backbone = DiffusersBackbone(self.model.load())
        model = enhancer.build(backbone.device)
        return validate(people, people.pictures("val"), backbone, self.faces.load(), model)


def _strip(images: Tensor, side: int = 128) -> Image.Image:
    strip = Image.new("RGB", (side * len(images), side))
    for number, image in enumerate(to_pixels(images)):
        strip.paste(Image.fromarray(image).resize((side, side)), (number * side, 0))
    return strip
