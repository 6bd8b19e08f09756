"""Many people: a file with one of them a line, and what becomes of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
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
        job: what to train; None if the line is no good.
        problem: why; "" if it is good.
    """

    line: int
    name: str
    job: TrainJob | None
    problem: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of one entry."""

    line: int
    name: str
    status: str
    output: str = ""
    digest: str = ""
    message: str = ""


def read_people(path: Path, common: TrainJob, folder: Path) -> list[Entry]:
    """The file's entries; a bad line becomes an entry with its problem.

    A line is a JSON object: "name", "photos" (a path or a list), and if need be "output", "id_embeds" and any training
    setting. Paths are relative to the file, outputs to `folder`.

    Args:
        common: what entries share; its name, output and photos' places are replaced.
        folder: for results without an "output" of their own.

    Raises:
        ConfigError: no entry at all.
        OSError: the file cannot be read.
    """
    entries = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            entries.append(_read_entry(number, line, path.parent, common, folder))
    if not entries:
        raise ConfigError(
            f"at least one person in {path}", "none", 'Write a line such as {"name": "alice", "photos": "alice"}.'
        )
    outputs: dict[Path, int] = {}
    for index, entry in enumerate(entries):
        if entry.job and outputs.setdefault(entry.job.output.resolve(), entry.line) != entry.line:
            first = outputs[entry.job.output.resolve()]
            entries[index] = Entry(
                entry.line, entry.name, None, f"Line {first} has the same output, {entry.job.output}."
            )
    return entries


def train_entry(job: TrainJob, line: int) -> Outcome:
    """Train one person unless that was done before; any error is an outcome, so that the others go on."""
    try:
        found = job.finished()
        identity = found or job.run()
    except (IdeaError, OSError) as error:
        return Outcome(line, job.name, FAILED, message=str(error))
    except Exception as error:
        return Outcome(line, job.name, FAILED, message=f"{type(error).__name__}: {error}")
    return Outcome(line, job.name, FINISHED if found else TRAINED, str(job.output), identity.digest())


def train_locally(entries: Iterable[Entry]) -> Iterator[Outcome]:
    """One after the other in this process."""
    for entry in entries:
        yield train_entry(entry.job, entry.line) if entry.job else bad_entry(entry)


def bad_entry(entry: Entry) -> Outcome:
    return Outcome(entry.line, entry.name, FAILED, message=entry.problem)


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


def _job(entry: dict[str, Any], base: Path, common: TrainJob, folder: Path) -> TrainJob:
    unknown = set(entry) - _OWN - _SETTINGS
    missing = {"name", "photos"} - set(entry)
    if unknown or missing:
        got = f"{', '.join(sorted(unknown))} besides" if unknown else f"no {', '.join(sorted(missing))}"
        raise ConfigError(
            f"name, photos and if need be {', '.join(sorted(_OWN - {'name', 'photos'} | _SETTINGS))}",
            got,
            "Mend the line.",
        )
    name = one_form(str(entry["name"]))
    places = entry["photos"] if isinstance(entry["photos"], list) else [entry["photos"]]
    own = entry.get("id_embeds")
    settings = {key: value for key, value in entry.items() if key in _SETTINGS}
    return dataclasses.replace(
        common,
        name=name,
        output=as_on_disk(folder / entry.get("output", f"{name}.safetensors")),
        photos=dataclasses.replace(
            common.photos,
            places=tuple(as_on_disk(base / place) for place in places),
            id_embeds=as_on_disk(base / own) if own else None,
        ),
        config=dataclasses.replace(common.config, **settings),
    )
