"""An evaluation as JSON, CSV and one HTML page with all images."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Sequence
from dataclasses import fields
from importlib import resources
from pathlib import Path
from typing import Any

from PIL import Image

from ..faces.photos import read_photo
from .measures import ImageScore, by_prompt, summarise

THUMBNAIL = 192  # pixels
_TITLES = {
    "images": "images",
    "mean_similarity_strict": "mean similarity to the reference images, no face as 0",
    "mean_similarity_detected": "mean similarity to the reference images, detected faces",
    "similarity_to_mean_detected": "similarity to the mean embedding, detected faces",
    "detection_rate": "detection rate",
    "prompt_similarity": "prompt similarity",
    "witness_similarity_strict": "mean similarity by the second recogniser, no face as 0",
}
_COLUMNS = {  # of the table of prompts
    "images": "images",
    "mean_similarity_strict": "mean similarity",
    "spread": "its spread",
    "detection_rate": "detection rate",
    "prompt_similarity": "prompt similarity",
}


def write_report(scores: Sequence[ImageScore], references: Sequence[Path], folder: Path) -> list[Path]:
    """Write `scores.json`, `scores.csv` and `report.html`, which needs no other file.

    Args:
        references: the person's photos, shown at the top of the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = [vars(score) | {"path": str(score.path)} for score in scores]
    means = {"summary": summarise(scores), "prompts": by_prompt(scores)}
    data = json.dumps({**means, "images": rows}, ensure_ascii=False, indent=2)
    table = io.StringIO()
    writer = csv.DictWriter(table, [field.name for field in fields(ImageScore)])
    writer.writeheader()
    writer.writerows(rows)
    content = {"scores.json": data, "scores.csv": table.getvalue(), "report.html": _page(scores, references)}
    for name, text in content.items():
        (folder / name).write_text(text, "utf-8", newline="")
    return [folder / name for name in content]


def _page(scores: Sequence[ImageScore], references: Sequence[Path]) -> str:
    from jinja2 import Environment

    template = resources.files(__package__).joinpath("report.html.j2").read_text("utf-8")
    images: dict[str, list[tuple[str, ImageScore]]] = {}
    for score in scores:
        images.setdefault(score.prompt or "", []).append((_thumbnail(score.path), score))
    page = Environment(autoescape=True).from_string(template)
    return page.render(
        summary={title: summarise(scores)[key] for key, title in _TITLES.items()},
        references=[(path.name, _thumbnail(path)) for path in references],
        columns=_COLUMNS,
        means=by_prompt(scores),
        prompts=images,
    )


def _thumbnail(path: Path) -> str:
    """A small version of an image as a data URL."""
    image = Image.fromarray(read_photo(path))
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return data_url(image, "JPEG", quality=85)


def data_url(image: Image.Image, kind: str, **options: Any) -> str:
    """An image as a URL that contains it; `kind` and options are those of `Image.save`."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64," + base64.b64encode(buffer.getvalue()).decode()
