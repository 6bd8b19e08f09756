"""`idea encode`"""

from __future__ import annotations

from pathlib import Path

import click

from .console import Result, reports
from .options import PATH, face_options, take_faces


@click.command()
@click.argument("photos", nargs=-1, required=True, type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="File to write, such as alice.id.safetensors.")
@click.option("--preview", type=PATH, help="Folder for the photos with the faces marked, the chosen one in green.")
@face_options
@reports
def encode(photos: tuple[Path, ...], output: Path, preview: Path | None, **options) -> Result:
    """Find a person's face in PHOTOS (files or folders) and save its ArcFace embedding."""
    from PIL import Image

    from ..faces.embeds_file import save_embeds
    from ..faces.photos import find_photos, read_photo
    from ..faces.pictures import draw_faces
    from ..jobs.sources import encode_named

    source = take_faces(options)
    paths = find_photos(photos)
    embeds, found = encode_named(source.load(), [read_photo(path) for path in paths], paths)
    save_embeds(embeds, output, [path.name for path in paths], source.find().name)
    if preview:
        preview.mkdir(parents=True, exist_ok=True)
        for number, (path, face) in enumerate(zip(paths, found)):
            Image.fromarray(draw_faces(face)).save(preview / f"{number:03}_{path.stem}.faces.png")
    agreement = embeds.embeds @ embeds.mean
    rows = [
        {"photo": str(path), "faces": len(face.faces), "score": round(float(s), 4), "to_mean": round(float(a), 4)}
        for path, face, s, a in zip(paths, found, embeds.scores, agreement)
    ]
    lines = [f"{r['photo']}: {r['faces']} found, score {r['score']:.2f}, cosine {r['to_mean']:.2f}" for r in rows]
    return Result({"output": str(output), "photos": rows}, "\n".join([*lines, f"Saved {output}"]))
