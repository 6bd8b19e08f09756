"""`idea encode`"""

from __future__ import annotations

from pathlib import Path

import click

from ...faces.face import MIN_SCORE
from ...faces.find import RULES
from .console import Result, reports
from .options import PATH, face_options, take_faces

RULE_CHOICES = {rule.replace(" ", "-"): rule for rule in RULES}


@click.command()
@click.argument("photos", nargs=-1, required=True, type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="File to write, such as alice.id.safetensors.")
@click.option("--preview", type=PATH, help="Folder for the photos with the faces marked, the chosen one in green.")
@click.option("--crops", type=PATH, help="Folder for upright, square crops of the faces taken.")
@click.option("--crop-size", type=click.IntRange(16, 4096), default=512, help="Side of the crops in pixels.")
@click.option("--face", type=click.Choice(list(RULE_CHOICES)), default="largest", help="Which face of several.")
@click.option("--number", type=int, default=1, help="With --face by-number: of the face, from left to right.")
@click.option("--nearest-to", type=PATH, help="With --face nearest: a file that `idea encode` wrote.")
@click.option("--min-score", type=float, default=MIN_SCORE, help="Detection score below which a face does not count.")
@click.option(
    "--skip", is_flag=True, help="Leave photos out that cannot be read or have no such face, in place of an error."
)
@click.option("--leave-out-outliers", is_flag=True, help="Leave photos out that look like another person.")
@click.option("--aligned", is_flag=True, help="The photos are square, aligned crops of one face: use no detector.")
@face_options
@reports
def encode(
    photos: tuple[Path, ...], output: Path, preview: Path | None, crops: Path | None, crop_size: int, **options
) -> Result:
    """Find a person's face in PHOTOS (files or folders) and save its ArcFace embedding."""
    from ...faces.embeds_file import save_embeds
    from ...faces.encode import report
    from ...faces.photos import find_photos, read_photos
    from ...faces.pictures import Cut, crop_face, draw_faces
    from ..jobs.photo_source import encode_named

    source = take_faces(options)
    settings = _take_settings(options)
    paths, pictures, unread = read_photos(find_photos(photos), settings.skip)
    embeds, encoded = encode_named(source.load(), pictures, paths, settings)
    selected = [photo for photo in encoded if not photo.left_out]
    save_embeds(embeds, output, [paths[photo.index].name for photo in selected], source.find().name)
    names = [f"{number:03}_{path.stem}" for number, path in enumerate(paths)]
    if preview:
        _save({f"{names[photo.index]}.faces": draw_faces(photo) for photo in encoded}, preview)
    if crops:
        cut = Cut(crop_size, upright=True)
        _save({names[photo.index]: crop_face(photo.photo, photo.chosen, cut) for photo in selected}, crops)
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


def _take_settings(options: dict):
    from ...faces import FaceSettings
    from ...faces.embeds_file import load_embeds

    rule, nearest_to = RULE_CHOICES[options.pop("face")], options.pop("nearest_to")
    return FaceSettings(rule, like=load_embeds(nearest_to) if nearest_to else None, **options)


def _save(pictures: dict, folder: Path) -> None:
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        Image.fromarray(picture).save(folder / f"{name}.png")
