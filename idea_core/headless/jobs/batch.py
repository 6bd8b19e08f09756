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
class Outcome:
    """The outcome of one line of the file."""

    line: int
    name: str
    status: str
    output: str = ""
    digest: str = ""
    message: str = ""


def read_people(path: Path, common: TrainJob, folder: Path) -> tuple[dict[int, TrainJob], list[Outcome]]:
    """The file's trainings by line number, from 1, and an outcome for each bad line.

    A line is a JSON object: "name", "photos" (a path or a list), and optionally "output", "id_embeds" and any training
    setting. Paths are relative to the file, outputs to `folder`.

    Args:
        common: the settings that all share; name, output and photos come from each line.
        folder: for results without an "output" of their own.

    Raises:
        ConfigError: no entry at all.
        OSError: the file cannot be read.
    """
    jobs: dict[int, TrainJob] = {}
    bad: list[Outcome] = []
    lines_of: dict[Path, int] = {}
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        name = f"line {number}"
        try:
            entry = _entry(line)
            name = one_form(str(entry.get("name", name)))
            job = _job(entry, path.parent, common, folder)
            first = lines_of.setdefault(job.output.resolve(), number)
            if first != number:
                raise ValueError(f"Line {first} has the same output, {job.output}.")
            jobs[number] = job
        except (IdeaError, ValueError, TypeError) as error:
            bad.append(Outcome(number, name, FAILED, message=str(error)))
    if not jobs and not bad:
        raise ConfigError(
            f"at least one person in {path}", "none", 'Write a line such as {"name": "alice", "photos": "alice"}.'
        )
    return jobs, bad


def _entry(line: str) -> dict[str, Any]:
    remedy = 'Write {"name": …, "photos": …}.'
    try:
        entry = parse_json(line)
    except ValueError:
        raise ConfigError("a JSON object", f"{line.strip()[:40]!r}", remedy) from None
    if not isinstance(entry, dict):
        raise ConfigError("a JSON object", type(entry).__name__, remedy)
    return entry


def train_entry(line: int, job: TrainJob) -> Outcome:
    """Train one person, unless an earlier run did. An error becomes an outcome, so that the others continue."""
    try:
        finished = job.finished()
        identity = finished or job.run()
    except (IdeaError, OSError) as error:
        return Outcome(line, job.name, FAILED, message=str(error))
    except Exception as error:
        return Outcome(line, job.name, FAILED, message=f"{type(error).__name__}: {error}")
    return Outcome(line, job.name, FINISHED if finished else TRAINED, str(job.output), identity.digest())


def _job(entry: Mapping[str, Any], base: Path, common: TrainJob, folder: Path) -> TrainJob:
    unknown = set(entry) - _OWN - _SETTINGS
    missing = {"name", "photos"} - set(entry)
    if unknown or missing:
        got = f"{', '.join(sorted(unknown))} besides" if unknown else f"no {', '.join(sorted(missing))}"
        optional = ", ".join(sorted(_OWN - {"name", "photos"} | _SETTINGS))
        raise ConfigError(f"name, photos and optionally {optional}", got, "Correct the line.")
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
