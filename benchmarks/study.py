"""The study behind docs/evidence.md: methods, parts and rates, measured on people whom no model has seen.

    python -m benchmarks.study search        rates, on people who are not reported
    python -m benchmarks.study run           every cell of the table, on those who are
    python -m benchmarks.evidence            docs/evidence.md

`search` and `run` add one line a trial to a file in `benchmarks/results/`, leave out what is there already, and may be
stopped and started at any time. Several may run side by side, each with its --shard.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import click
import torch

from idea_core.diffusers_backbone import DiffusersBackbone, load_pipeline
from idea_core.identity import Identity
from miniature.methods import CELEB_BASIS, CROSS_INITIALIZATION, ID_EA, PUBLISHED, TEXTUAL_INVERSION, Method
from miniature.people import named_people
from miniature.trial import Stranger, learn, measure, prompts_of
from miniature.world import BASE, draw

RESULTS = Path(__file__).parent / "results"
SEARCH, REPORT = RESULTS / "search.jsonl", RESULTS / "study.jsonl"
REPORTED, SEARCHED = range(32), range(32, 38)  # people
BUDGETS = (25, 80, 320)
LONG = 2000  # steps, for Textual Inversion
SEARCH_STEPS = 80
OBEDIENT = 0.95
BOUNDS = ("true", "other")
KV = {"kv_rate": 2e-3}

ARMS: Mapping[str, Method] = {
    "ti": TEXTUAL_INVERSION,
    "ci": CROSS_INITIALIZATION,
    "celeb": CELEB_BASIS,
    "ti+kv": replace(TEXTUAL_INVERSION, title="Textual Inversion + K/V", settings={**TEXTUAL_INVERSION.settings, **KV}),
    "ci+kv": replace(
        CROSS_INITIALIZATION, title="Cross Initialization + K/V", settings={**CROSS_INITIALIZATION.settings, **KV}
    ),
    "published": PUBLISHED,
    "whole": ID_EA,
    "no enhancer": Method("ID-EA, Enhancer frozen at random", {"enhancer_rate": 0.0}),
    "no adapter": Method("ID-EA without Enhancer and Adapter", {"adapter_rate": 0.0}),
    "no kv": Method("ID-EA without K/V", {"kv_rate": 0.0}),
    "shut gate": Method("ID-EA, gate shut at the start", {"gate": 0.0}),
    "published reg": Method("ID-EA, published regulariser", {"regularizer_weight": 8e-4}),
    "l2": Method("ID-EA, L2", {"regularizer": "l2", "regularizer_weight": 1e-5}),
    "names": Method(
        "ID-EA, Mahalanobis over all names", {"regularizer": "names", "regularizer_weight": 8e-4, "zeta": 1e-3}
    ),
    "one rate": Method(
        "ID-EA, one rate for all",
        {key: PUBLISHED.settings[key] for key in ("token_rate", "adapter_rate")}
        | {"kv_rate": PUBLISHED.settings["token_rate"]},
    ),
}
MAIN = ("ti", "ci", "celeb", "ti+kv", "ci+kv", "published", "whole")

GRIDS: Mapping[str, Mapping[str, Sequence[float]]] = {
    "ti": {"token_rate": (3e-3, 1e-2, 3e-2, 1e-1)},
    "ci": {"token_rate": (3e-3, 1e-2, 3e-2, 1e-1)},
    "celeb": {"token_rate": (1e-2, 3e-2, 1e-1, 3e-1)},
    "ti+kv": {"kv_rate": (1e-3, 2e-3, 5e-3, 1e-2)},
    "ci+kv": {"kv_rate": (1e-3, 2e-3, 5e-3, 1e-2)},
    "whole": {"kv_rate": (2e-3, 5e-3), "adapter_rate": (3e-4, 5e-4)},
}
"""Rates that are tried for each arm: four of each; what is not listed takes those of "whole"."""


@dataclass(frozen=True)
class Cell:
    """One entry of a table, for one person."""

    arm: str
    person: int
    steps: int
    photos: int
    settings: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        return json.dumps([self.arm, self.person, self.steps, self.photos, dict(sorted(self.settings.items()))])


class Laboratory:
    """The world's base model, and trials on it."""

    def __init__(self, device: str):
        self.pipeline = load_pipeline(BASE, device=device)
        self.backbone = DiffusersBackbone(self.pipeline)
        self.folder = tempfile.TemporaryDirectory()

    def trial(self, cell: Cell) -> dict[str, Any]:
        """One line of a file of results."""
        person, seconds = Stranger(cell.person, cell.photos), 0.0
        if cell.arm == "true":
            pictures = person.true_pictures(person.asked, 5)
        elif cell.arm == "other":
            pictures = Stranger(cell.person + 100).true_pictures(person.asked, 5)
        elif cell.arm == "named":
            name = named_people().names()[cell.person]
            pictures = draw(self.pipeline, [], prompts_of(person.asked, name))
        else:
            method = ARMS[cell.arm]
            config = method.config(**cell.settings, steps=cell.steps, seed=cell.person)
            identity, seconds = self.learn(person, method, config)
            pictures = draw(self.pipeline, [identity], prompts_of(person.asked, identity.trigger))
        result = measure(pictures, person, person.asked)
        line = {"key": cell.key, "arm": cell.arm, "person": cell.person, "steps": cell.steps, "photos": cell.photos}
        line |= {"settings": dict(cell.settings), **{key: round(value, 5) for key, value in result.items()}}
        return line | {"seconds": round(seconds, 2)}

    def learn(self, person: Stranger, method: Method, config) -> tuple[Identity, float]:
        seen = person.prepared(Path(self.folder.name) / f"{person.number}-{person.count}")
        return learn(self.backbone, seen, method, config)


def searched_cells() -> Iterator[Cell]:
    for person in SEARCHED:
        for arm, grid in GRIDS.items():
            for values in itertools.product(*grid.values()):
                yield Cell(arm, person, SEARCH_STEPS, 4, dict(zip(grid, values)))


def reported_cells(chosen: Mapping[str, Mapping[str, float]]) -> Iterator[Cell]:
    """By person, so that a study that was stopped has whole rows."""
    for person in REPORTED:
        for arm in BOUNDS:
            yield Cell(arm, person, 0, 4)
        for arm in ARMS:
            settings = rates_of(arm, chosen)
            for steps in BUDGETS if arm in MAIN else (SEARCH_STEPS,):
                yield Cell(arm, person, steps, 4, settings)
            if arm in MAIN:
                yield Cell(arm, person, BUDGETS[0], 1, settings)
        yield Cell("ti", person, LONG, 4, rates_of("ti", chosen))


def rates_of(arm: str, chosen: Mapping[str, Mapping[str, float]]) -> Mapping[str, float]:
    """The rates that the search chose for an arm; a part of ID-EA takes those of the whole that it has."""
    if arm in chosen or arm == "published":
        return chosen.get(arm, {})
    return {key: value for key, value in chosen["whole"].items() if key not in ARMS[arm].settings}


def choose(lines: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Each arm's settings with the highest identity among those that obey in 95 % of pictures, or that obey best."""
    chosen = {}
    for arm in GRIDS:
        trials: dict[str, list[Mapping[str, Any]]] = {}
        for line in lines:
            if line["arm"] == arm:
                trials.setdefault(json.dumps(line["settings"], sort_keys=True), []).append(line)
        if trials:
            means = {key: (mean(found, "obedience"), mean(found, "identity")) for key, found in trials.items()}
            best = max(means, key=lambda key: (min(means[key][0], OBEDIENT), means[key][1]))
            chosen[arm] = json.loads(best)
    return chosen


def mean(lines: Iterable[Mapping[str, Any]], measure: str) -> float:
    values = [line[measure] for line in lines]
    return sum(values) / len(values)


def read_lines(file: Path) -> list[dict[str, Any]]:
    """All trials in a file of results and in those of its shards."""
    files = sorted(file.parent.glob(f"{file.stem}*.jsonl"))
    return [json.loads(line) for path in files for line in path.read_text("utf-8").splitlines()]


def work_off(cells: Iterable[Cell], file: Path, shard: str, device: str) -> None:
    """Every `shard`-th cell that is not in the files yet."""
    number, of = map(int, shard.split("/"))
    done = {line["key"] for line in read_lines(file)}
    todo = [cell for index, cell in enumerate(cells) if index % of == number and cell.key not in done]
    laboratory = Laboratory(device)
    file.parent.mkdir(exist_ok=True)
    with open(file if of == 1 else file.with_stem(f"{file.stem}-{number}"), "a", encoding="utf-8") as results:
        for count, cell in enumerate(todo, 1):
            results.write(json.dumps(laboratory.trial(cell)) + "\n")
            results.flush()
            click.echo(f"{count}/{len(todo)}  {cell.key}")


@click.group()
def study() -> None:
    """Likeness, obedience and time of ID-EA, its parts, and the methods before it."""


SHARD = click.option("--shard", default="0/1", help="Which part of the work, as 0/2 and 1/2.")
DEVICE = click.option("--device", default="cpu")
THREADS = click.option("--threads", type=int, default=2, help="Of the processor.")


@study.command()
@SHARD
@DEVICE
@THREADS
def search(shard: str, device: str, threads: int) -> None:
    """Try rates on people who are not reported."""
    torch.set_num_threads(threads)
    work_off(searched_cells(), SEARCH, shard, device)


@study.command()
@SHARD
@DEVICE
@THREADS
def run(shard: str, device: str, threads: int) -> None:
    """Measure every cell on the people who are reported."""
    torch.set_num_threads(threads)
    work_off(reported_cells(choose(read_lines(SEARCH))), REPORT, shard, device)


if __name__ == "__main__":
    study()
