"""Draw the pack's icon, its banner, and the README's animation from photos to a picture:  python tools/banner.py

The images come from the world of people in three dimensions.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from thumbnails import BACK, HATLESS, MARK, OTHER, PROMPT, Drawn, as_picture, square

from world3d.somebody import everybody
from world3d.world import World

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
ICON, BANNER, FLOW = 400, (1260, 540), (840, 300)  # the banner is 21 to 9, as ComfyUI's registry wants it
NAME, SENTENCE = "ID-EA for ComfyUI", "a person in any prompt, from a few photos"
WHITE, GREY = (240, 242, 246), (150, 155, 165)
LOOKS = (1, 5, 10, 25)  # steps of the trainings whose results are shown
PROMPTS = (PROMPT, OTHER)
SHORT, LONG = 700, 1900  # milliseconds of a frame
MARGIN = 20


def paste_row(sheet: Image.Image, images: Sequence[np.ndarray], x: int, y: int, side: int) -> int:
    """Images (S, S, 3) beside each other; where the next one would begin."""
    for image in images:
        sheet.paste(as_picture(image, side), (x, y))
        x += side + MARGIN
    return x


def banner(photos: Sequence[np.ndarray], drawn: Sequence[np.ndarray]) -> Image.Image:
    """Name and sentence above photos and what was drawn."""
    sheet = Image.new("RGB", BANNER, BACK)
    pen, width = ImageDraw.Draw(sheet), BANNER[0]
    pen.text((width / 2, 90), NAME, WHITE, font_size=84, anchor="mm")
    pen.text((width / 2, 170), SENTENCE, GREY, font_size=38, anchor="mm")
    side, y, arrow = 200, 270, 80
    x = (width - (len(photos) + len(drawn)) * (side + MARGIN) - arrow + MARGIN) // 2
    x = paste_row(sheet, photos, x, y, side)
    pen.text((x + arrow / 2 - MARGIN / 2, y + side / 2), ">", MARK, font_size=80, anchor="mm")
    paste_row(sheet, drawn, x + arrow, y, side)
    return sheet


def frame(photos: Sequence[np.ndarray], line: str, share: float, picture: np.ndarray | None) -> Image.Image:
    """A moment of the flow: the photos so far, how far the training is, and the latest picture."""
    sheet = Image.new("RGB", FLOW, BACK)
    pen, (width, height), side = ImageDraw.Draw(sheet), FLOW, 104
    for number, photo in enumerate(photos):
        sheet.paste(as_picture(photo, side), (30 + number % 2 * (side + 12), 24 + number // 2 * (side + 12)))
    bar = (290, 120, 490, 132)
    pen.rectangle(bar, outline=GREY)
    pen.rectangle((bar[0], bar[1], bar[0] + share * (bar[2] - bar[0]), bar[3]), fill=MARK)
    pen.text((390, 96), "train", WHITE if share else GREY, font_size=24, anchor="mm")
    if picture is not None:
        sheet.paste(as_picture(picture, 220), (width - 280, 24))
    pen.text((width / 2, height - 24), line, WHITE, font_size=22, anchor="mm")
    return sheet


def flow(
    photos: Sequence[np.ndarray], looks: Sequence[np.ndarray], drawn: Sequence[np.ndarray]
) -> list[tuple[Image.Image, int]]:
    """Frames and their milliseconds."""
    frames = [(frame(photos[:n], "a few photos of one person", 0, None), SHORT) for n in range(1, len(photos) + 1)]
    for steps, look in zip(LOOKS, looks):
        frames.append((frame(photos, f"step {steps} of {LOOKS[-1]}", steps / LOOKS[-1], look), SHORT))
    for prompt, picture in zip(PROMPTS, drawn):
        frames.append((frame(photos, prompt.format("<alice>"), 1, picture), LONG))
    return frames


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        draw(World.shipped(Path(folder)))


def draw(world: World) -> None:
    somebody = everybody(4)[0]
    trained = [Drawn(world, somebody, steps) for steps in LOOKS]
    alice = trained[-1]
    drawn = [image for prompt in PROMPTS for image in alice.images(prompt)]
    looks = [image for one in trained for image in one.images(HATLESS)]
    square(alice.images(), size=ICON).save(IMAGES / "icon.png")
    banner(alice.photos[:3], drawn).save(IMAGES / "banner.png")
    (first, _), *others = frames = flow(alice.photos, looks, drawn)
    times = [milliseconds for _, milliseconds in frames]
    images = [image for image, _ in others]
    first.save(IMAGES / "flow.webp", save_all=True, append_images=images, duration=times, loop=0, quality=80)


if __name__ == "__main__":
    main()
