"""One page of a comparison: its tables, and a contact sheet of each person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageOps

from ..faces.photos import read_photo
from .comparison import ComparisonTables
from .report import data_url

SIDE = 112  # pixels of an image on a sheet


class Sheet(NamedTuple):
    """A person on the page.

    Attributes:
        photos: what they were learned from.
        prompts: one for each column.
        rows: title of a method → an image of each prompt.
    """

    person: str
    photos: Sequence[Path]
    prompts: Sequence[str]
    rows: Mapping[str, Sequence[Path]]


def comparison_page(tables: ComparisonTables, sheets: Sequence[Sheet], faults: Mapping[str, str]) -> str:
    """The page, which needs no other file.

    Args:
        faults: folder of a person who could not be read → the message.
    """
    from jinja2 import Environment

    template = resources.files(__package__).joinpath("comparison.html.j2").read_text("utf-8")
    return (
        Environment(autoescape=True)
        .from_string(template)
        .render(
            against=tables.titles[tables.against],
            rows=tables.rows(),
            differences=tables.differences(),
            failed=tables.failed,
            faults=faults,
            sheets=list(map(_shown, sheets)),
            side=SIDE,
        )
    )


def strip(paths: Sequence[Path]) -> str:
    """Images side by side, cropped to squares, as a data URL."""
    joined = Image.new("RGB", (SIDE * len(paths), SIDE))
    for number, path in enumerate(paths):
        joined.paste(ImageOps.fit(Image.fromarray(read_photo(path)), (SIDE, SIDE)), (number * SIDE, 0))
    return data_url(joined, "JPEG", quality=85)


def _shown(sheet: Sheet) -> dict[str, Any]:
    rows = {title: strip(paths) for title, paths in sheet.rows.items()}
    return {"person": sheet.person, "photos": strip(sheet.photos), "prompts": sheet.prompts, "rows": rows}
