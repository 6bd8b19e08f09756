"""`idea encode`"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ...faces.find import FaceSettings
from ..jobs import FaceSource
from .console import Result, reports, save_images
from .grouped import PATH, Paths, Sectioned, grouped, options_of
from .options import face_options


def _face_settings(nearest_to: Path | None, **values: Any) -> FaceSettings:
    from ...faces.embeds import load_embeds

    return FaceSettings(**values, nearest_to=load_embeds(nearest_to) if nearest_to else None)


@click.command(cls=Sectioned)
@reports
@click.argument("photos", nargs=-1, required=True, type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="File to write, such as alice.id.safetensors.")
@click.option("--preview", type=PATH, help="Folder for the photos with all faces marked, the face in use in green.")
@click.option("--crops", type=PATH, help="Folder for upright, square crops of the faces in use.")
@click.option("--crop-size", type=click.IntRange(16, 4096), default=512, help="Size of the crops in pixels.")
@grouped(
    "settings",
    _face_settings,
    *options_of(FaceSettings),
    click.Option(["--nearest-to"], type=PATH, help="File from `idea encode`, for --face nearest."),
)
@face_options
def encode(
    photos: Paths,
    output: Path,
    preview: Path | None,
    crops: Path | None,
    crop_size: int,
    settings: FaceSettings,
    faces: FaceSource,
) -> Result:
    """Find a person's face in PHOTOS (files or folders) and save its ArcFace embedding."""
    from ...faces.embeds import save_embeds
    from ...faces.encode import report
    from ...faces.photos import find_photos, read_photos
    from ...faces.pictures import Cut, crop_face, draw_faces
    from ..jobs.photo_source import encode_named

    paths, images, unread = read_photos(find_photos(photos), settings.skip)
    embeds, encoded = encode_named(faces.load(), images, paths, settings)
    selected = [photo for photo in encoded if not photo.left_out]
    save_embeds(embeds, output, [paths[photo.index].name for photo in selected], faces.find().name)
    names = [f"{number:03}_{path.stem}" for number, path in enumerate(paths)]
    if preview:
        save_images({f"{names[photo.index]}.faces": draw_faces(photo) for photo in encoded}, preview)
    if crops:
        chosen = [(names[photo.index], photo.photo, photo.chosen) for photo in selected if photo.chosen]
        cut = Cut(crop_size, upright=True)
        save_images({name: crop_face(photo, face, cut) for name, photo, face in chosen}, crops)
    rows = [
        {
            "photo": str(paths[photo.index]),
            "faces": len(photo.faces),
            "score": round(photo.chosen.score, 4) if photo.chosen else None,
            "to_mean": round(photo.cosine, 4) if photo.chosen else None,
            "outlier": photo.outlier,
            "left_out": photo.left_out,
        }
        for photo in encoded
    ]
    rows += [
        {"photo": str(path), "faces": 0, "score": None, "to_mean": None, "outlier": False, "left_out": reason}
        for path, reason in unread.items()
    ]
    return Result({"output": str(output), "photos": rows}, f"{report(encoded, paths, unread)}\nSaved {output}")
