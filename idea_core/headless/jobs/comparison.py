"""What all trials of a comparison share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ...enhancers.config import RefineConfig
from ...method.anchor import celebrity_names
from ...training.methods import Method
from ..config import GenerateConfig
from .photo_source import PhotoSource
from .sources import FaceSource, ModelSource

REFINING_SEED = 10**9  # far from the seeds of the images


@dataclass(frozen=True)
class Comparison:
    """What all trials share.

    Attributes:
        folder: for people, images and results.
        photos: how photos are cropped; the places come from each person.
        methods: by name.
        prompts: with `{}` for the person, for people without their own.
        per_prompt: images of each prompt.
        drawing: how images are drawn; each has its own seed, counted up from this one's.
        names: celebrity names for the start.
        enhancer: file of a pretrained ID-Enhancer, for the methods that need one.
        refining: how its answers are refined, for the methods that do so; never on the noise of images to be measured.
        drawing_dtype: precision of the model that draws; None: the training's.
        clip: folder of a CLIP model, for prompt similarity.
        witness: face models of the second recogniser.
    """

    folder: Path
    model: ModelSource
    faces: FaceSource
    photos: PhotoSource
    methods: Mapping[str, Method]
    prompts: tuple[str, ...]
    per_prompt: int = 1
    drawing: GenerateConfig = GenerateConfig()
    names: tuple[str, ...] = dataclasses.field(default_factory=celebrity_names)
    enhancer: Path | None = None
    refining: RefineConfig = RefineConfig(seed=REFINING_SEED)
    drawing_dtype: str | None = None
    clip: Path | None = None
    witness: FaceSource | None = None

    @cached_property
    def drawing_model(self) -> ModelSource:
        """The model that draws."""
        if self.drawing_dtype in (None, self.model.chosen_dtype()):
            return self.model
        return dataclasses.replace(self.model, dtype=self.drawing_dtype)
