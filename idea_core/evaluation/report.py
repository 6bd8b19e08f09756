"""An evaluation as JSON, CSV and one HTML page with a contact sheet."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from PIL import Image

from ..faces.photos import read_photo
from .measures import Evaluation, PictureScore

THUMBNAIL = 192  # pixels
_COLUMNS = ("path", "prompt", "faces", "mean_similarity", "similarity_to_mean", "prompt_similarity")
_TITLES = {
    "images": "images",
    "mean_similarity_strict": "mean similarity to the reference images, no face as 0",
    "mean_similarity_detected": "mean similarity to the reference images, detected faces",
    "similarity_to_mean_detected": "similarity to the mean embedding, detected faces",
    "detection_rate": "detection rate",
    "prompt_similarity": "prompt similarity",
}


def write_report(evaluation: Evaluation, references: Sequence[Path], folder: Path) -> list[Path]:
    """Write `scores.json`, `scores.csv` and `report.html`, which needs no other file.

    Args:
        references: the person's photos, shown at the top of the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = [_row(score) for score in evaluation.scores]
    data = json.dumps({"summary": evaluation.summary(), "images": rows}, ensure_ascii=False, indent=2)
    table = io.StringIO()
    writer = csv.DictWriter(table, _COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    content = {"scores.json": data, "scores.csv": table.getvalue(), "report.html": _page(evaluation, references)}
    for name, text in content.items():
        (folder / name).write_text(text, "utf-8", newline="")
    return [folder / name for name in content]


def _row(score: PictureScore) -> dict:
    return {column: str(score.path) if column == "path" else getattr(score, column) for column in _COLUMNS}


def _page(evaluation: Evaluation, references: Sequence[Path]) -> str:
    from jinja2 import Environment

    template = resources.files(__package__).joinpath("report.html.j2").read_text("utf-8")
    by_prompt: dict[str, list[tuple[str, PictureScore]]] = {}
    for score in evaluation.scores:
        by_prompt.setdefault(score.prompt or "without a known prompt", []).append((_thumbnail(score.path), score))
    return (
        Environment(autoescape=True)
        .from_string(template)
        .render(
            summary={_TITLES[key]: value for key, value in evaluation.summary().items()},
            references=[(path.name, _thumbnail(path)) for path in references],
            prompts=by_prompt,
        )
    )


def _thumbnail(path: Path) -> str:
    """A small picture as a data address."""
    image = Image.fromarray(read_photo(path))
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return data_address(image, "JPEG", quality=85)


def data_address(image: Image.Image, kind: str, **options) -> str:
    """A picture as an address that holds it; `kind` and options are those of `Image.save`."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64," + base64.b64encode(buffer.getvalue()).decode()
