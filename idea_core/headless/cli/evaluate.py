"""`idea evaluate`"""

from __future__ import annotations

import json
from pathlib import Path

import click

from ..jobs import FaceSource
from .console import Result, progress, reports
from .grouped import PATH, Paths
from .options import face_options, witness_option


@click.command()
@reports
@click.argument("images", nargs=-1, required=True, type=PATH)
@click.option(
    "--reference",
    "references",
    type=PATH,
    multiple=True,
    required=True,
    help="The person's photos (files or folders), or a face embedding from `idea encode`; may be repeated.",
)
@click.option("--clip", type=PATH, help="Folder of a CLIP model in transformers' format, for prompt similarity.")
@click.option("-o", "--output", type=PATH, default="evaluation", help="Folder for JSON, CSV and the HTML page.")
@click.option("--device", default="auto", help="Where CLIP runs.")
@face_options
@witness_option
def evaluate(
    images: Paths,
    references: Paths,
    clip: Path | None,
    output: Path,
    device: str,
    faces: FaceSource,
    witness_pack: str | None,
) -> Result:
    """Measure IMAGES (files, or folders with their subfolders) by the Celeb Basis protocol.

    The mean similarity to the reference images is the mean of the largest face's cosines to each of them; in the strict
    score an image without a face counts as 0. The similarity to the mean embedding is the face's cosine to the mean of
    the references. It is larger, and is the one that ID Similarity shows in ComfyUI.

    Prompt similarity is CLIP's, with the person left out of the prompt. The prompt comes from the image itself if `idea
    generate` made it, else from its folder's name (underscores for spaces).
    """
    import torch

    from ...evaluation import ClipScorer, Witness, score_images, summarise, write_report
    from ...faces import IdEmbeds
    from ...faces.embeds import load_embeds
    from ...faces.photos import find_photos, read_photo
    from ..jobs.photo_source import encode_named
    from ..jobs.sources import choose_device

    engine = faces.load()
    paths = find_photos(images, deep=True)
    files = [path for path in references if path.suffix == ".safetensors"]
    others = [path for path in references if path not in files]
    photos = find_photos(others) if others else []
    known = [load_embeds(path) for path in files]
    if photos:
        known.append(encode_named(engine, [read_photo(path) for path in photos], photos)[0])
    reference = IdEmbeds(*(torch.cat([getattr(one, part) for one in known]) for part in ("embeds", "scores")))
    scorer = ClipScorer(clip, choose_device(device)) if clip else None
    witness = None
    if witness_pack:
        if not photos:
            raise click.UsageError("--witness-pack needs photos as --reference: embeddings are of one recogniser.")
        second = faces.other(witness_pack).build()
        witness = Witness.of(second, engine, [read_photo(path) for path in photos])
    with progress(len(paths), "evaluating", "image") as bar:
        scores = []
        for score in score_images(paths, engine, reference, prompt_of, scorer, witness):
            scores.append(score)
            bar.update()
    written, summary = write_report(scores, photos, output), summarise(scores)
    lines = [f"{key:<30} {'–' if value is None else f'{value:.4g}'}" for key, value in summary.items()]
    if clip is None:
        lines.append("Prompt similarity needs --clip, the folder of a CLIP model.")
    return Result({**summary, "report": [str(path) for path in written]}, "\n".join([*lines, f"Report: {written[-1]}"]))


def prompt_of(path: Path) -> str | None:
    """An image's prompt: from its metadata, else from its folder's name if that has a `{}`."""
    from PIL import Image

    with Image.open(path) as image:
        settings = image.info.get("id-ea")
    if settings:
        try:
            return str(json.loads(settings)["prompt"])
        except (ValueError, KeyError, TypeError):
            return None
    folder = path.parent.name.replace("_", " ")
    return folder if "{}" in folder else None
