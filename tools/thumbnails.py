"""Draw the example workflows' thumbnails for ComfyUI's template browser: squares of up to four images.

The images come from the miniature world:

python tools/thumbnails.py
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from idea_core.enhancers.refine import Refiner
from idea_core.headless.diffusers import DiffusersBackbone, load_pipeline
from idea_core.identity.edit import blend
from idea_core.identity.identity import Identity
from idea_core.training.config import PRESETS
from miniature.methods import REFINING, SEEN
from miniature.trial import Stranger, learn
from miniature.world import BASE, all_names, draw, enhancer, face_engine, to_photo

WORKFLOWS = Path(__file__).resolve().parents[1] / "workflows"
SIZE, MARGIN, BACK, MARK = 512, 8, (30, 32, 38), (255, 196, 64)
PROMPT = "a photo of <{}>, smiling, wearing a green hat, on a blue background"
HATLESS = "a photo of <{}>, on a orange background"
PAINTING = "a painting of <{}>, on a purple background"
ANN, BOB = 7, 11  # of the people whom no model has seen


@dataclass(frozen=True)
class Drawn:
    """A person of the miniature world, trained in a few steps.

    Attributes:
        number: index among the people whom no model has seen.
        steps: of the training; None: those of the preset `fast`.
    """

    pipeline: object
    number: int
    name: str
    steps: int | None = None

    @cached_property
    def stranger(self) -> Stranger:
        return Stranger(self.number, 4)

    @cached_property
    def identity(self) -> Identity:
        config = PRESETS["fast"]
        with tempfile.TemporaryDirectory() as folder:
            photos = self.stranger.prepared(Path(folder))
        if self.steps is not None:
            config = replace(config, steps=self.steps)
        return replace(learn(DiffusersBackbone(self.pipeline), photos, SEEN, config)[0], name=self.name)

    def images(self, prompt: str = PROMPT, count: int = 1, seed: int = 0) -> list[Tensor]:
        return images_of(self.pipeline, self.identity, prompt, count, seed)


def images_of(pipeline, identity: Identity, prompt: str = PROMPT, count: int = 1, seed: int = 0) -> list[Tensor]:
    """Images (3, S, S) of a person; `{}` in the prompt stands for the name."""
    return list(draw(pipeline, [identity], [prompt.format(identity.name)] * count, seed))


def square(images: Sequence[Tensor], marked: int | None = None, size: int = SIZE) -> Image.Image:
    """One to four images (3, S, S) in a square; the marked one gets a frame."""
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


def as_picture(image: Tensor, side: int) -> Image.Image:
    """An image (3, S, S) in 0…1 as a square picture."""
    return Image.fromarray(to_photo(image)).resize((side, side), Image.Resampling.LANCZOS)


def sheets() -> Mapping[str, Image.Image]:
    """API workflow → thumbnail."""
    pipeline = load_pipeline(BASE)
    alice, bob = Drawn(pipeline, ANN, "alice"), Drawn(pipeline, BOB, "bob")
    photos, (one,), (two,), (painted,) = alice.stranger.photos, alice.images(), bob.images(), alice.images(PAINTING)
    with tempfile.TemporaryDirectory() as folder:
        face = Stranger(ANN).prepared(Path(folder)).embeds.mean
    better = Refiner(DiffusersBackbone(pipeline), enhancer(), face_engine(), REFINING).refine(face)
    first, best = (enhancer().identity("alice", face, candidate.shown) for candidate in (better[0], better[-1]))
    (instant,), (refined,) = images_of(pipeline, first), images_of(pipeline, best)
    half = torch.cat([alice.images(HATLESS)[0][..., :32], bob.images(HATLESS)[0][..., 32:]], dim=-1)
    between = images_of(pipeline, blend([alice.identity, bob.identity], [0.5, 0.5], "blend"))
    hatless = HATLESS.format("alice")
    strengths = [draw(pipeline, [alice.identity], [hatless], 5, strength=s)[0] for s in (0.0, 0.5, 1.0, 1.5)]
    celebrities = list(draw(pipeline, [], [f"a photo of {name}, on a blue background" for name in all_names()[:4]]))
    return {
        "photos_to_picture": square([*photos[:2], one, painted], marked=2),
        "generate_with_identity": square([one, *alice.images(HATLESS, 2), painted]),
        "train_identity": square(photos[:4]),
        "strengths": square(strengths),
        "best_of_a_batch": square(alice.images(count=4), marked=0),
        "person_with_lora": square([one, painted]),
        "two_people": square([one, two, half]),
        "blend_people": square([one, two, *between]),
        "generate_with_sdxl": square(alice.images(HATLESS, 1, seed=5)),
        "encode_and_compare": square([*photos[:2], bob.stranger.photos[0], one], marked=1),
        "train_enhancer": square(celebrities),
        "instant_person": square([photos[0], instant]),
        "refined_person": square([photos[0], instant, refined], marked=2),
    }


def main() -> None:
    drawn = sheets()
    for path in sorted((WORKFLOWS / "api").glob("*.json")):
        template = json.loads(path.read_text("utf-8"))["1"]["_meta"]["template"]
        drawn[path.stem].save(WORKFLOWS / f"{template}.jpg", quality=85)


if __name__ == "__main__":
    main()
