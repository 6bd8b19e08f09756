"""Previews of the chosen faces, and the crops and masks for a training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from .align import similarity
from .face import TEMPLATE, Face
from .find import FacePhoto

MARGIN = 2.0  # side of a crop in face sizes, so that hair, ears and shoulders are in it
CHOSEN, OTHER, POINT = (64, 220, 96), (255, 176, 32), (255, 64, 64)

# The oval of a face in ArcFace's template, from the hairline to the chin: (center x, center y), (radius x, radius y).
OVAL = np.array([56.0, 63.0]), np.array([40.0, 60.0])


@dataclass(frozen=True)
class Cut:
    """A crop's side in pixels (`size`) and in face sizes (`margin`), and whether it is rotated to level eyes."""

    size: int = 512
    margin: float = MARGIN
    upright: bool = False


def crop_face(photo: np.ndarray, face: Face, cut: Cut = Cut()) -> np.ndarray:
    """A square crop (size, size, 3) of a photo (H, W, 3), RGB, uint8, centred on the face.

    Beyond the photo's border its edge pixels are repeated.
    """
    half = _half(face, cut)
    if cut.upright:
        around = _square_at(photo, face.center, half * 2**0.5)
        turned = around.rotate(np.rad2deg(face.tilt), Image.Resampling.BICUBIC)
        border, side = round((around.width - 2 * half) / 2), max(1, round(2 * half))
        crop = turned.crop((border, border, border + side, border + side))
    else:
        crop = _square_at(photo, face.center, half)
    return np.asarray(crop.resize((cut.size, cut.size), Image.Resampling.LANCZOS))


def face_mask(face: Face, cut: Cut = Cut()) -> np.ndarray:
    """Mask (size, size) float32 in 0…1 of the face in its `crop_face`: an oval from the hairline to the chin."""
    angle = -face.tilt if cut.upright else 0.0
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    keypoints = (face.keypoints - face.center) @ turn.T * (cut.size / 2 / _half(face, cut)) + cut.size / 2
    to_template = similarity(keypoints, TEMPLATE)
    x, y = np.meshgrid(np.arange(cut.size) + 0.5, np.arange(cut.size) + 0.5)
    place = np.stack([x, y, np.ones_like(x)], axis=-1) @ to_template.T
    radius = np.linalg.norm((place - OVAL[0]) / OVAL[1], axis=-1)
    pixel = np.hypot(*to_template[:, 0]) / OVAL[1].mean()  # a pixel's size in radii, over which the edge fades
    return ((1 - radius) / pixel + 0.5).clip(0, 1).astype(np.float32)


def draw_faces(photo: FacePhoto) -> np.ndarray:
    """The photo (H, W, 3) uint8 with a numbered box and key points for each face; the chosen one in green."""
    image = Image.fromarray(photo.photo)
    draw = ImageDraw.Draw(image)
    stroke = max(2, round(min(image.size) / 150))
    for number, face in enumerate(photo.faces, start=1):
        color = CHOSEN if face is photo.chosen and not photo.left_out else OTHER
        draw.rectangle([float(edge) for edge in face.box], outline=color, width=stroke)
        for x, y in face.keypoints:
            draw.ellipse([x - stroke, y - stroke, x + stroke, y + stroke], fill=POINT)
        label = (float(face.box[0]) + 2 * stroke, float(face.box[1]) + stroke)
        text, font_size = f"{number}: {face.score:.2f}", max(12, 6 * stroke)
        draw.text(label, text, fill=color, font_size=font_size, stroke_width=2, stroke_fill=(0, 0, 0))
    return np.asarray(image)


def stack(images: Sequence[np.ndarray]) -> np.ndarray:
    """Images (h, w, 3) of different sizes as one batch (N, H, W, 3), each in the upper left of black."""
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    batch = np.zeros((len(images), height, width, 3), np.uint8)
    for canvas, image in zip(batch, images):
        canvas[: image.shape[0], : image.shape[1]] = image
    return batch


def _half(face: Face, cut: Cut) -> float:
    """Half the crop's side in pixels of the photo."""
    left, top, right, bottom = face.box
    return cut.margin * max(right - left, bottom - top) / 2


def _square_at(photo: np.ndarray, center: np.ndarray, half: float) -> Image.Image:
    """The square around a point at the photo's own resolution; beyond the border its edge pixels are repeated."""
    box = np.round(np.concatenate([center - half, center + half])).astype(int)
    height, width = photo.shape[:2]
    before = np.maximum(-box[:2], 0)
    after = np.maximum(box[2:] - (width, height), 0)
    padded = np.pad(photo, ((before[1], after[1]), (before[0], after[0]), (0, 0)), mode="edge")
    left, top, right, bottom = (int(edge) for edge in box + np.concatenate([before, before]))
    return Image.fromarray(padded).crop((left, top, right, bottom))
