"""Draw the example workflows' thumbnails for ComfyUI's template browser, and the pack's icon and banner.

The images come from the miniature world:

python tools/thumbnails.py
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
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
IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
SIZE, MARGIN, BACK, MARK = (640, 400), 12, (30, 32, 38), (255, 196, 64)
ICON, BANNER = (400, 400), (1260, 540)  # for ComfyUI's registry: a square, and 21 to 9
PROMPT = "a photo of <{}>, smiling, wearing a green hat, on a blue background"
HATLESS = "a photo of <{}>, on a orange background"


def person(pipeline, number: int, name: str) -> tuple[Stranger, Identity]:
    """A drawn person, trained in a few steps."""
    stranger = Stranger(number, 4)
    with tempfile.TemporaryDirectory() as folder:
        photos = stranger.prepared(Path(folder))
    learned, _ = learn(DiffusersBackbone(pipeline), photos, SEEN, PRESETS["fast"])
    return stranger, replace(learned, name=name)


def sheet(
    rows: Sequence[Sequence[Tensor | str]], marked: int | None = None, size: tuple[int, int] = SIZE
) -> Image.Image:
    """Images (3, S, S) in rows; a text is written between them."""
    image = Image.new("RGB", size, BACK)
    pen = ImageDraw.Draw(image)
    wide = max(sum(0.4 if isinstance(part, str) else 1.0 for part in row) for row in rows)
    side = int(min((size[0] - MARGIN) / wide, (size[1] - MARGIN) / len(rows))) - MARGIN
    top = (size[1] - len(rows) * (side + MARGIN) + MARGIN) // 2
    for line, row in enumerate(rows):
        width = sum(int(0.4 * side) if isinstance(part, str) else side + MARGIN for part in row) - MARGIN
        x, y = (size[0] - width) // 2, top + line * (side + MARGIN)
        for number, part in enumerate(row):
            if isinstance(part, str):
                pen.text((x + 0.14 * side, y + side / 2), part, MARK, font_size=int(0.3 * side), anchor="mm")
                x += int(0.4 * side)
                continue
            image.paste(Image.fromarray(to_photo(part)).resize((side, side), Image.Resampling.LANCZOS), (x, y))
            if line == 0 and number == marked:
                pen.rectangle((x - 4, y - 4, x + side + 3, y + side + 3), outline=MARK, width=5)
            x += side + MARGIN
    return image


def main() -> None:
    pipeline = load_pipeline(BASE)
    (ann, alice), (_, bob) = person(pipeline, 7, "alice"), person(pipeline, 11, "bob")

    def images(identity: Identity, prompt: str = PROMPT, count: int = 1, seed: int = 0) -> list[Tensor]:
        return list(draw(pipeline, [identity], [prompt.format(identity.name)] * count, seed))

    def without_training() -> list[Tensor]:
        """Instant and refined images, from one photo."""
        with tempfile.TemporaryDirectory() as folder:
            face = Stranger(ann.number).prepared(Path(folder)).embeds.mean
        better = Refiner(DiffusersBackbone(pipeline), enhancer(), face_engine(), REFINING).refine(face)
        first, best = (enhancer().identity("alice", face, one.shown) for one in (better[0], better[-1]))
        return images(first) + images(best)

    named = [f"a photo of {name}, on a {color} background" for color in ("blue", "orange") for name in all_names()[:5]]
    celebrities = list(draw(pipeline, [], named))
    (one,), (two,), (at_once, refined) = images(alice), images(bob), without_training()
    half = torch.cat([images(alice, HATLESS)[0][..., :32], images(bob, HATLESS)[0][..., 32:]], dim=-1)
    between = blend([alice, bob], [0.5, 0.5], "blend")
    hatless = HATLESS.format(alice.name)
    painted = images(alice, "a painting of <{}>, on a purple background")
    sheets = {
        "train_identity": sheet([[*ann.photos[:3], ">", one]]),
        "generate_with_identity": sheet([[one, *images(alice, HATLESS, 2)]]),
        "encode_and_compare": sheet([[*ann.photos[:2], "~", one]]),
        "two_people": sheet([[one, two, ">", half]]),
        "person_with_lora": sheet([[one, "+", *painted]]),
        "best_of_a_batch": sheet([images(alice, count=4), images(alice, count=4, seed=4)], marked=0),
        "blend_people": sheet([[one, *images(between), two]]),
        "strengths": sheet([[draw(pipeline, [alice], [hatless], 5, strength=s)[0] for s in (0.0, 0.5, 1.0, 1.5)]]),
        "generate_with_sdxl": sheet([images(alice, HATLESS, 3, seed=5)]),
        "instant_person": sheet([[ann.photos[0], ">", one]]),
        "train_enhancer": sheet([celebrities[:5], celebrities[5:]]),
        "refined_person": sheet([[ann.photos[0], ">", at_once, ">", refined]]),
    }
    sheet([[one]], size=ICON).save(IMAGES / "icon.png")
    sheet([[*ann.photos[:3], ">", *images(alice, HATLESS), *painted]], size=BANNER).save(IMAGES / "banner.png")
    for name, image in sheets.items():
        image.save(WORKFLOWS / f"{name}.jpg", quality=85)


if __name__ == "__main__":
    main()
