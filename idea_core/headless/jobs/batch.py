"""Many people: a file with one of them per line, and the outcome of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import ConfigError, IdeaError
from ...files.textfile import parse_json, read_text
from ...text.names import as_on_disk, one_form
from ...training.config import TrainConfig
from .train import TrainJob

TRAINED, FINISHED, FAILED = "trained", "finished before", "failed"
_OWN = {"name", "photos", "output", "id_embeds"}
_SETTINGS = {field.name for field in dataclasses.fields(TrainConfig)}


@dataclass(frozen=True)
class Entry:
    """One line of the file.

    Attributes:
        line: its number, from 1.
        job: what to train; None for a bad line.
        problem: why a line is bad.
    """

    line: int
    name: str
    job: TrainJob | None
    problem: str = ""


@dataclass(frozen=True)
class Outcome:
    """The outcome of one entry."""

    line: int
    name: str
    status: str
    output: str = ""
    digest: str = ""
    message: str = ""


def read_people(path: Path, common: TrainJob, folder: Path) -> list[Entry]:
    """The file's entries; a bad line becomes an entry with its problem.

    A line is a JSON object: "name", "photos" (a path or a list), and optionally "output", "id_embeds" and any training
    setting. Paths are relative to the file, outputs to `folder`.

    Args:
        common: the settings that entries share; name, output and photos come from each line.
        folder: for results without an "output" of their own.

    Raises:
        ConfigError: no entry at all.
        OSError: the file cannot be read.
    """
    lines = enumerate(read_text(path).split("\n"), start=1)
    entries = [_read_entry(number, line, path.parent, common, folder) for number, line in lines if line.strip()]
    if not entries:
        raise ConfigError(
            f"at least one person in {path}", "none", 'Write a line such as {"name": "alice", "photos": "alice"}.'
        )
    lines_of: dict[Path, int] = {}
    for index, entry in enumerate(entries):
        if entry.job:
            first = lines_of.setdefault(entry.job.output.resolve(), entry.line)
            if first != entry.line:
                problem = f"Line {first} has the same output, {entry.job.output}."
                entries[index] = dataclasses.replace(entry, job=None, problem=problem)
    return entries


def train_entry(entry: Entry) -> Outcome:
    """Train one person, unless an earlier run did. An error becomes an outcome, so that the others continue."""
    job, failed = entry.job, Outcome(entry.line, entry.name, FAILED, message=entry.problem)
    if job is None:
        return failed
    try:
        finished = job.finished()
        identity = finished or job.run()
    except (IdeaError, OSError) as error:
        return dataclasses.replace(failed, message=str(error))
    except Exception as error:
        return dataclasses.replace(failed, message=f"{type(error).__name__}: {error}")
    return Outcome(entry.line, job.name, FINISHED if finished else TRAINED, str(job.output), identity.digest())


def _read_entry(number: int, line: str, base: Path, common: TrainJob, folder: Path) -> Entry:
    name = f"line {number}"
    try:
        entry = parse_json(line)
        if not isinstance(entry, dict):
            raise ConfigError("a JSON object", type(entry).__name__, 'Write {"name": …, "photos": …}.')
        name = one_form(str(entry.get("name", name)))
        return Entry(number, name, _job(entry, base, common, folder))
    except (IdeaError, ValueError, TypeError) as error:
        return Entry(number, name, None, str(error))


def _job(entry: Mapping[str, Any], base: Path, common: TrainJob, folder: Path) -> TrainJob:
    unknown = set(entry) - _OWN - _SETTINGS
    missing = {"name", "photos"} - set(entry)
    if unknown or missing:
        got = f"{', '.join(sorted(unknown))} besides" if unknown else f"no {', '.join(sorted(missing))}"
        optional = ", ".join(sorted(_OWN - {"name", "photos"} | _SETTINGS))
        raise ConfigError(f"name, photos and if need be {optional}", got, "Mend the line.")
    name = one_form(str(entry["name"]))
    places = entry["photos"] if isinstance(entry["photos"], list) else [entry["photos"]]
    id_embeds = entry.get("id_embeds")
    return dataclasses.replace(
        common,
        name=name,
        output=as_on_disk(folder / entry.get("output", f"{name}.safetensors")),
        photos=dataclasses.replace(
            common.photos,
            places=tuple(as_on_disk(base / place) for place in places),
            id_embeds=as_on_disk(base / id_embeds) if id_embeds else None,
        ),
        config=dataclasses.replace(common.config, **{key: entry[key] for key in _SETTINGS & set(entry)}),
    )
