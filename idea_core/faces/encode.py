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
    found = [find_face(engine, photo, index, settings) for index, photo in enumerate(photos)]
    taken = [f for f in found if f.chosen]
    if not taken:
        raise FaceError("a face in at least one photo", f"none in {len(photos)}", "Take photos with a larger face.")
    embeds = embed_faces(engine, taken, settings.aligned)
    outliers = embeds.outliers()
    counted = embeds
    if settings.leave_out_outliers:
        if outliers.all():
            raise FaceError(
                "photos of one person",
                f"{len(taken)} photos, none of which looks like most of the others",
                "Keep only the photos of one person, or choose which face is taken.",
            )
        counted = embeds.only(~outliers)
    reason = "looks like another person" if settings.leave_out_outliers else ""
    for photo, cosine, outlier in zip(taken, embeds.embeds @ counted.mean, outliers):
        found[photo.index] = replace(
            photo, cosine=float(cosine), outlier=bool(outlier), left_out=reason if outlier else ""
        )
    return counted, found


def embed_faces(engine: FaceEngine, found: Sequence[FacePhoto], aligned: bool = False) -> IdEmbeds:
    """Embeddings of the faces taken, one a photo."""
    embeds = torch.from_numpy(engine.embed_crops([recogniser_crop(engine, f, aligned) for f in found])).float()
    scores = torch.tensor([f.chosen.score for f in found], dtype=torch.float32)
    return IdEmbeds(torch.nn.functional.normalize(embeds), scores)


def report(found: Sequence[FacePhoto], names: Sequence[object] = (), unread: Mapping[Path, str] | None = None) -> str:
    """A line for each photo, and one for all.

    Args:
        names: what each photo is called; default: "photo" and its index.
        unread: files of others, and why they could not be read.
    """
    unread = unread or {}
    lines = [f"{path}: left out, not read: {reason}" for path, reason in unread.items()]
    for f in found:
        name = names[f.index] if names else f"photo {f.index}"
        if f.chosen is None:
            lines.append(f"{name}: left out, no face taken: {f.left_out}")
            continue
        number = next(n for n, face in enumerate(f.faces, start=1) if face is f.chosen)
        line = f"{name}: face {number} of {len(f.faces)}, score {f.chosen.score:.2f}, "
        line += f"cosine to the mean {f.cosine:.2f}"
        if f.outlier:
            line += ", looks like another person" + (": left out" if f.left_out else "")
        lines.append(line)
    counted = [f for f in found if not f.left_out]
    agreement = np.mean([f.cosine for f in counted])
    lines.append(
        f"{len(counted)} of {len(found) + len(unread)} photos taken, mean cosine to their mean {agreement:.2f}"
    )
    return "\n".join(lines)
