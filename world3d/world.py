"""The world as an experiment uses it: its models in a folder, and measures of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, normalize

from idea_core.enhancers.pretrained import PretrainedEnhancer
from idea_core.faces import Face, FaceEngine
from idea_core.faces.score import embed_faces, largest, pick_faces
from idea_core.headless.diffusers import load_pipeline
from idea_core.headless.jobs.sources import FaceSource
from miniature.align import TEMPLATE, align
from miniature.face_nets import POOL, second_recogniser
from miniature.images import to_tensor

from .shipped import BASE, ENHANCER, FACES, SECOND, unpack

GUIDANCE, SAMPLING_STEPS = 3.0, 20  # at which the base model follows prompts and draws its people best
DRAWING_STEPS = 12  # of a second-order sampler, for images that are learned from or compared


@dataclass(frozen=True, eq=False)
class World:
    """The world's models in a folder: `base/` of diffusers, `faces/` of ONNX files, `enhancer.safetensors`."""

    folder: Path

    @classmethod
    def shipped(cls, folder: Path) -> World:
        """The models that come with ID-EA, written to a folder. Raises OSError if it cannot be written to."""
        return cls(unpack(folder))

    @property
    def base(self) -> Path:
        return self.folder / BASE

    @property
    def faces(self) -> FaceSource:
        return FaceSource(self.folder / FACES, provider="cpu")

    @cached_property
    def pipeline(self):
        return load_pipeline(self.base)

    @cached_property
    def engine(self) -> FaceEngine:
        return self.faces.load()

    @cached_property
    def enhancer(self) -> PretrainedEnhancer:
        """The ID-Enhancer that was pretrained on the people whom the base model knows."""
        return PretrainedEnhancer.load(self.folder / ENHANCER)

    @cached_property
    def second(self) -> nn.Module:
        """A recogniser of another architecture, trained on other people, for measuring only."""
        net = second_recogniser()
        net.load_state_dict({key: value.float() for key, value in load_file(self.folder / FACES / SECOND).items()})
        return net.eval().requires_grad_(False)

    def embed(self, images: Sequence[np.ndarray]) -> tuple[Tensor, Tensor, list[Face | None]]:
        """Embeddings of the largest faces by both recognisers, (N, 512) and (N, D); zeros without a face. The faces."""
        faces = pick_faces(self.engine, images, largest)
        return embed_faces(self.engine, images, faces), self._seen_again(images, faces), faces

    @torch.no_grad()
    def _seen_again(self, images: Sequence[np.ndarray], faces: Sequence[Face | None]) -> Tensor:
        points = torch.stack([TEMPLATE if face is None else torch.from_numpy(face.keypoints).float() for face in faces])
        crops = [align(to_tensor([image]), point[None]) for image, point in zip(images, points)]
        embeddings = self.second(avg_pool2d(torch.cat(crops), POOL) * 2 - 1)
        return normalize(embeddings, dim=1) * torch.tensor([[face is not None] for face in faces])


def read(path: Path) -> np.ndarray:
    """(H, W, 3) of bytes."""
    return np.asarray(Image.open(path).convert("RGB"))
