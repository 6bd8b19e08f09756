"""Draw the example workflows' thumbnails for ComfyUI's template browser: squares of up to four images.

The images come from the world of people in three dimensions:

python tools/thumbnails.py
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from idea_core.enhancers.refine import Refiner
from idea_core.headless.diffusers import DiffusersBackbone, People
from idea_core.headless.diffusers.generate import generate_each
from idea_core.identity.edit import blend
from idea_core.identity.identity import Identity
from idea_core.training.config import PRESETS
from idea_core.training.trainer import Trainer
from world3d.demo import DRAWING, REFINING
from world3d.names import known_names
from world3d.somebody import Somebody, everybody
from world3d.world import World, read

WORKFLOWS = Path(__file__).resolve().parents[1] / "workflows"
SIZE, MARGIN, BACK, MARK = 512, 8, (30, 32, 38), (255, 196, 64)
PROMPT = "a photo of {}, smiling, wearing a green hat, in front of a blue wall"
HATLESS = "a photo of {}, in front of an orange wall"
OTHER = "a photo of {}, surprised, wearing glasses, in front of a checked purple wall"


@dataclass(frozen=True)
class Drawn:
    """A person of the world, trained in a few steps.

    Attributes:
        steps: of the training; None: those of the preset `fast`.
    """

    world: World
    somebody: Somebody
    steps: int | None = None

    @property
    def photos(self) -> list[np.ndarray]:
        return list(map(read, self.somebody.photos))

    @cached_property
    def identity(self) -> Identity:
        config, seen = PRESETS["fast"], self.somebody.prepared(self.world)
        if self.steps is not None:
            config = replace(config, steps=self.steps)
        backbone, face = DiffusersBackbone(self.world.pipeline), seen.embeds.mean
        trainer = Trainer.of(backbone, seen.photos, face, config, known_names(), start=self.world.enhancer)
        trainer.run()
        return trainer.identity(self.somebody.folder.name)

    def images(self, prompt: str = PROMPT, count: int = 1, seed: int = 0, strength: float = 1.0) -> list[np.ndarray]:
        return images_of(self.world, self.identity, prompt, count, seed, strength)


def images_of(
    world: World, identity: Identity, prompt: str = PROMPT, count: int = 1, seed: int = 0, strength: float = 1.0
) -> list[np.ndarray]:
    """Images (S, S, 3) of a person; `{}` in the prompt stands for the name."""
    people = People(world.pipeline, [identity], strength, strength)
    config = replace(DRAWING, seed=seed)
    return list(
        map(np.asarray, generate_each(world.pipeline, people, [prompt.format(identity.trigger)] * count, config))
    )


def square(images: Sequence[np.ndarray], marked: int | None = None, size: int = SIZE) -> Image.Image:
    """One to four images (S, S, 3) in a square; the marked one gets a frame."""
    across = 1 if len(images) == 1 else 2
    side = (size - MARGIN) // across - MARGIN
    sheet, pen = (one := Image.new("RGB", (size, size), BACK)), ImageDraw.Draw(one)
    top = MARGIN if len(images) != 2 else (size - side) // 2
    for number, image in enumerate(images):
        x, y = MARGIN + number % across * (side + MARGIN), top + number // across * (side + MARGIN)
        if len(images) == 3 and number == 2:
            x = (size - side) // 2
        sheet.paste(as_picture(image, side), (x, y))
        if number == marked:
            pen.rectangle((x, y, x + side - 1, y + side - 1), outline=MARK, width=6)
    return sheet


def as_picture(image: np.ndarray, side: int) -> Image.Image:
    """An image (S, S, 3) of bytes as a square picture."""
    return Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS)


def sheets(world: World) -> Mapping[str, Image.Image]:
    """API workflow → thumbnail."""
    alice, bob = (Drawn(world, somebody) for somebody in everybody(4)[:2])
    photos, (one,), (two,), (other,) = alice.photos, alice.images(), bob.images(), alice.images(OTHER)
    face = everybody(1)[0].prepared(world).embeds.mean
    better = Refiner(DiffusersBackbone(world.pipeline), world.enhancer, world.engine, REFINING).refine(face)
    first, best = (world.enhancer.identity("alice", face, candidate.shown) for candidate in (better[0], better[-1]))
    (instant,), (refined,) = images_of(world, first), images_of(world, best)
    middle = one.shape[1] // 2
    half = np.concatenate([alice.images(HATLESS)[0][:, :middle], bob.images(HATLESS)[0][:, middle:]], axis=1)
    between = images_of(world, blend([alice.identity, bob.identity], [0.5, 0.5], "blend"))
    strengths = [alice.images(HATLESS, seed=5, strength=strength)[0] for strength in (0.0, 0.5, 1.0, 1.5)]
    known = [f"a photo of {name}, in front of a blue wall" for name in known_names()[:4]]
    celebrities = list(map(np.asarray, generate_each(world.pipeline, People(world.pipeline, []), known, DRAWING)))
    return {
        "photos_to_picture": square([*photos[:2], one, other], marked=2),
        "generate_with_identity": square([one, *alice.images(HATLESS, 2), other]),
        "train_identity": square(photos[:4]),
        "strengths": square(strengths),
        "best_of_a_batch": square(alice.images(count=4), marked=0),
        "person_with_lora": square([one, other]),
        "two_people": square([one, two, half]),
        "blend_people": square([one, two, *between]),
        "generate_with_sdxl": square(alice.images(HATLESS, 1, seed=5)),
        "encode_and_compare": square([*photos[:2], bob.photos[0], one], marked=1),
        "train_enhancer": square(celebrities),
        "instant_person": square([photos[0], instant]),
        "refined_person": square([photos[0], instant, refined], marked=2),
        "zimage_photos_to_picture": square([photos[0], other], marked=1),
        "zimage_two_people": square([one, two]),
        "klein_photos_to_picture": square([photos[1], *alice.images(HATLESS, seed=7)], marked=1),
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        drawn = sheets(World.shipped(Path(folder)))
    for path in sorted((WORKFLOWS / "api").glob("*.json")):
        template = json.loads(path.read_text("utf-8"))["1"]["_meta"]["template"]
        drawn[path.stem].save(WORKFLOWS / f"{template}.jpg", quality=85)


if __name__ == "__main__":
    main()
