"""Photos → faces → ID_EMBEDS, and a report on each photo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ..errors import FaceError
from .embeds import IdEmbeds
from .face import TEMPLATE_SIDE, Face, FaceEngine
from .find import FacePhoto, FaceSettings, find_face
from .score import embed_crops, similarity_to_mean


def encode_photos(
    engine: FaceEngine, photos: Sequence[np.ndarray], settings: FaceSettings = FaceSettings()
) -> tuple[IdEmbeds, list[FacePhoto]]:
    """Find the person in each photo and embed the face.

    Args:
        photos: each (H, W, 3), RGB, uint8; of any sizes.

    Returns:
        The embeddings of the photos in use, and all photos; each photo left out has a reason.

    Raises:
        FaceError: no photos, one without pixels or without a face (it names its index), or no photo in use.
    """
    if not photos:
        raise FaceError("at least one photo", "none", "Connect an image.")
    faces = [find_face(engine, photo, index, settings) for index, photo in enumerate(photos)]
    selected = [photo for photo in faces if photo.chosen]
    if not selected:
        raise FaceError("a face in at least one photo", f"none in {len(photos)}", "Take photos with a larger face.")
    embeds = embed_chosen(engine, selected, settings.aligned)
    outliers, kept, reason = embeds.outliers(), embeds, ""
    if settings.leave_out_outliers:
        if outliers.all():
            raise FaceError(
                "photos of one person",
                f"{len(selected)} photos, none of which looks like most of the others",
                "Keep only the photos of one person, or choose another face.",
            )
        kept, reason = embeds.only(~outliers), "looks like another person"
    for photo, cosine, outlier in zip(selected, similarity_to_mean(embeds.embeds, kept.mean), outliers):
        left_out = reason if outlier else ""
        faces[photo.index] = replace(photo, cosine=float(cosine), outlier=bool(outlier), left_out=left_out)
    return kept, faces


def embed_chosen(engine: FaceEngine, photos: Sequence[FacePhoto], aligned: bool = False) -> IdEmbeds:
    """Embeddings of the chosen faces, one per photo that has one. Crops that are aligned already are only scaled."""
    chosen = [(photo.photo, photo.chosen) for photo in photos if photo.chosen]
    if aligned:
        from .photos import fit  # and PIL with it

        side, face = TEMPLATE_SIDE, Face.aligned(TEMPLATE_SIDE)
        chosen = [(photo if len(photo) == side else fit(photo, side, side), face) for photo, _ in chosen]
    scores = torch.tensor([face.score for _, face in chosen], dtype=torch.float32)
    return IdEmbeds(embed_crops(engine, [engine.align(photo, face) for photo, face in chosen]), scores)


def report(photos: Sequence[FacePhoto], names: Sequence[object] = (), unread: Mapping[Path, str] | None = None) -> str:
    """A line for each photo, and one for all.

    Args:
        names: the photos' names; default: "photo" and its index.
        unread: files that could not be read, and why.
    """
    unread = unread or {}
    lines = [f"{path}: left out, not read: {reason}" for path, reason in unread.items()]
    for photo in photos:
        name = names[photo.index] if names else f"photo {photo.index}"
        if photo.chosen is None:
            lines.append(f"{name}: left out, no face used: {photo.left_out}")
            continue
        number = next(n for n, face in enumerate(photo.faces, start=1) if face is photo.chosen)
        suffix = ", looks like another person" if photo.outlier else ""
        suffix += ": left out" if photo.left_out else ""
        score, cosine = f"score {photo.chosen.score:.2f}", f"cosine to the mean {photo.cosine:.2f}"
        lines.append(f"{name}: face {number} of {len(photo.faces)}, {score}, {cosine}{suffix}")
    kept = [photo.cosine for photo in photos if not photo.left_out]
    total = len(photos) + len(unread)
    lines.append(f"{len(kept)} of {total} photos used, mean cosine to their mean {np.mean(kept):.2f}")
    return "\n".join(lines)
