"""An ID-Enhancer trained across people on diffusers, from names that a base model can draw to a file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor

from ...enhancers.config import DatasetConfig
from ...enhancers.dataset import PeopleDataset
from ...enhancers.drawing import draw_people
from ...enhancers.pretrained import PretrainedEnhancer
from ...enhancers.run import EnhancerSpec, train_enhancer
from ...files.digest import digest_of
from ...images import to_pixels
from ...training.output import Output
from ...training.run import OnProgress
from ..diffusers import DiffusersBackbone, FlowBackbone, backbone_of
from ..diffusers.compiled import can_compile
from .sources import FaceSource, ModelSource


@dataclass(frozen=True)
class PeopleJob:
    """Images of people whom the base model knows by name, and a training on them.

    Attributes:
        folder: for the images, and a preview strip of each person.
    """

    folder: Path
    model: ModelSource
    faces: FaceSource = FaceSource()
    config: DatasetConfig = DatasetConfig()

    def open(self) -> PeopleDataset:
        """The images' folder."""
        model = digest_of(self.model.digest, self.model.chosen_dtype(), str(self.model.prediction))
        return PeopleDataset(self.folder, self.config, self.config.fingerprint(model, self.faces.digest()))

    def backbone(self) -> DiffusersBackbone | FlowBackbone:
        """The base model, loaded."""
        return backbone_of(self.model.load())

    def draw(self, people: PeopleDataset, shard: tuple[int, int] = (0, 1)) -> Iterator[int]:
        """Draw the missing images; yields each person's number."""
        for number, images in draw_people(people, self.backbone(), self.faces.load(), shard):
            if images is not None:
                _strip(images).save(people.file_of(number).with_suffix(".jpg"), quality=85)
            yield number

    def train(
        self,
        spec: EnhancerSpec,
        path: Path,
        save_every: int,
        on_progress: OnProgress,
        compiled: bool | None = None,
    ) -> PretrainedEnhancer:
        """`train_enhancer` on this base model, into the file at `path`.

        Args:
            compiled: compile the network; None: where that pays.
        """
        output, backbone = Output(path, spec.fingerprint, save_every, base=self.model.provenance), self.backbone()
        if isinstance(backbone, DiffusersBackbone) and (can_compile(backbone.device) if compiled is None else compiled):
            backbone.compile()
        return train_enhancer(backbone, spec, self.faces.load(), output, on_progress)


def _strip(images: Tensor, side: int = 128) -> Image.Image:
    strip = Image.new("RGB", (side * len(images), side))
    for number, image in enumerate(to_pixels(images)):
        strip.paste(Image.fromarray(image).resize((side, side)), (number * side, 0))
    return strip
