"""Pictures that show which face was taken, and the crops that a training sees."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from .embeds import FacePhoto
from .face import Face

MARGIN = 2.0  # side of a crop in face sizes: hair, ears and shoulders belong to the person
CHOSEN, OTHER, POINT = (64, 220, 96), (255, 176, 32), (255, 64, 64)


def crop_face(photo: np.ndarray, face: Face, size: int = 512, margin: float = MARGIN) -> np.ndarray:
    """A square crop (size, size, 3) uint8 with the face in its middle; the photo's border is continued.

    Args:
        photo: (H, W, 3), RGB, uint8.
        size: side of the crop in pixels.
        margin: side of the crop in face sizes.
    """
    left, top, right, bottom = face.box
    half = margin * max(right - left, bottom - top) / 2
    x, y = (left + right) / 2, (top + bottom) / 2
    box = np.round([x - half, y - half, x + half, y + half]).astype(int)
    height, width = photo.shape[:2]
    before = np.maximum(-box[:2], 0)
    after = np.maximum(box[2:] - (width, height), 0)
    padded = np.pad(photo, ((before[1], after[1]), (before[0], after[0]), (0, 0)), mode="edge")
    box += np.concatenate([before, before])
    crop = Image.fromarray(padded).crop(tuple(int(edge) for edge in box))
    return np.asarray(crop.resize((size, size), Image.Resampling.LANCZOS))


def draw_faces(found: FacePhoto) -> np.ndarray:
    """The photo (H, W, 3) uint8 with a numbered box and key points for each face; the chosen one in green."""
    picture = Image.fromarray(found.photo)
    draw = ImageDraw.Draw(picture)
    stroke = max(2, round(min(picture.size) / 150))
    for number, face in enumerate(found.faces, start=1):
        color = CHOSEN if face is found.chosen else OTHER
        draw.rectangle([float(edge) for edge in face.box], outline=color, width=stroke)
        for x, y in face.keypoints:
            draw.ellipse([x - stroke, y - stroke, x + stroke, y + stroke], fill=POINT)
        label = (float(face.box[0]) + 2 * stroke, float(face.box[1]) + stroke)
        draw.text(label, f"{number}: {face.score:.2f}", fill=color, font_size=max(12, 6 * stroke))
    return np.asarray(picture)
