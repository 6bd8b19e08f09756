"""Photos → faces → ID_EMBEDS, and what there is to say about each photo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ..errors import FaceError
from .embeds import IdEmbeds
from .face import FaceEngine
from .find import FacePhoto, FaceSettings, find_face, recogniser_crop
from .score import embed_crops, similarity_to_mean


def encode_photos(
    engine: FaceEngine, photos: Sequence[np.ndarray], settings: FaceSettings = FaceSettings()
) -> tuple[IdEmbeds, list[FacePhoto]]:
    """Find the person in each photo and embed the face.

    Args:
        photos: each (H, W, 3), RGB, uint8; of any sizes.

    Returns:
        The embeddings of the photos that count, and all photos; those left out say why.

    Raises:
        FaceError: no photos, one without pixels or without a face (it names its index), or no photo that counts.
    """
    if not photos:
        raise FaceError("at least one photo", "none", "Connect an image.")
    faces = [find_face(engine, photo, index, settings) for index, photo in enumerate(photos)]
    selected = [photo for photo in faces if photo.chosen]
    if not selected:
        raise FaceError("a face in at least one photo", f"none in {len(photos)}", "Take photos with a larger face.")
    embeds = embed_chosen(engine, selected, settings.aligned)
    outliers = embeds.outliers()
    counted = embeds
    if settings.leave_out_outliers:
        if outliers.all():
            raise FaceError(
                "photos of one person",
                f"{len(selected)} photos, none of which looks like most of the others",
                "Keep only the photos of one person, or choose which face is taken.",
            )
        counted = embeds.only(~outliers)
    reason = "looks like another person" if settings.leave_out_outliers else ""
    for photo, cosine, outlier in zip(selected, similarity_to_mean(embeds.embeds, counted.mean), outliers):
        faces[photo.index] = replace(
            photo, cosine=float(cosine), outlier=bool(outlier), left_out=reason if outlier else ""
        )
    return counted, faces


def embed_chosen(engine: FaceEngine, photos: Sequence[FacePhoto], aligned: bool = False) -> IdEmbeds:
    """Embeddings of the chosen faces, one a photo."""
    crops = [recogniser_crop(engine, photo, aligned) for photo in photos]
    scores = torch.tensor([photo.chosen.score for photo in photos if photo.chosen], dtype=torch.float32)
    return IdEmbeds(embed_crops(engine, crops), scores)


def report(photos: Sequence[FacePhoto], names: Sequence[object] = (), unread: Mapping[Path, str] | None = None) -> str:
    """A line for each photo, and one for all.

    Args:
        names: what each photo is called; default: "photo" and its index.
        unread: files of others, and why they could not be read.
    """
    unread = unread or {}
    lines = [f"{path}: left out, not read: {reason}" for path, reason in unread.items()]
    for photo in photos:
        name = names[photo.index] if names else f"photo {photo.index}"
        if photo.chosen is None:
            lines.append(f"{name}: left out, no face taken: {photo.left_out}")
            continue
        number = next(n for n, face in enumerate(photo.faces, start=1) if face is photo.chosen)
        line = f"{name}: face {number} of {len(photo.faces)}, score {photo.chosen.score:.2f}, "
        line += f"cosine to the mean {photo.cosine:.2f}"
        if photo.outlier:
            line += ", looks like another person" + (": left out" if photo.left_out else "")
        lines.append(line)
    counted = [photo for photo in photos if not photo.left_out]
    agreement = np.mean([photo.cosine for photo in counted])
    lines.append(
        f"{len(counted)} of {len(photos) + len(unread)} photos taken, mean cosine to their mean {agreement:.2f}"
    )
    return "\n".join(lines)
