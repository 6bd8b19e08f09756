"""The report of a comparison: tables, CSV, JSON, and one page with contact sheets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, BinaryIO

from ...evaluation.comparison import ComparisonTables
from ...evaluation.sheets import Sheet, comparison_page
from ...files.tensorfile import write_atomically
from .comparison import Comparison
from .people import Person
from .trial import Trial

PAGE = "report.html"


def write_comparison(
    comparison: Comparison,
    people: Sequence[Person],
    results: Sequence[dict[str, Any]],
    against: str,
    faults: Mapping[str, str],
) -> ComparisonTables:
    """Write the report into the comparison's folder; the tables that it shows.

    Args:
        results: of all trials.
        against: method that the others are subtracted from.
        faults: folder of a person who could not be read → the message.
    """
    tables = write_tables(comparison, people, results, against)
    page = comparison_page(tables, list(_sheets(comparison, people, tables)), faults)
    write_atomically(comparison.folder / PAGE, partial(_write, page))
    return tables


def write_tables(
    comparison: Comparison, people: Sequence[Person], results: Sequence[dict[str, Any]], against: str
) -> ComparisonTables:
    """Write the tables alone, of the trials so far."""
    order = {person.name: number for number, person in enumerate(people)}
    results = sorted(results, key=lambda result: order[result["person"]])  # Ray gives them as they finish
    titles = {name: method.title for name, method in comparison.methods.items()}
    tables = ComparisonTables(titles, results, against)
    for name, text in tables.files().items():
        write_atomically(comparison.folder / name, partial(_write, text))
    return tables


def _sheets(comparison: Comparison, people: Sequence[Person], tables: ComparisonTables) -> Iterator[Sheet]:
    """A sheet for each person of whom anything was drawn: of each prompt the first image."""
    done = {(result["person"], result["method"]) for result in tables.done if not result["repetition"]}
    for person in people:
        rows, prompts = {}, person.prompts or comparison.prompts
        for name, title in tables.titles.items():
            if (person.name, name) in done:
                images = Trial(comparison, person, name).image_files
                rows[title] = images[:: comparison.per_prompt]
        if rows:
            yield Sheet(person.name, person.photos, prompts, rows)


def _write(text: str, file: BinaryIO) -> None:
    file.write(text.encode())
