"""The study among people in three dimensions, who are judged by networks that others trained on real faces.

    python -m benchmarks.study3d search --networks work/faces    rates, on people who are not reported
    python -m benchmarks.study3d run --networks work/faces       every cell of the table, on those who are
    python -m benchmarks.study3d tables                          docs/real-faces.md

A trial is one of `idea compare`.  Results go to `benchmarks/results/`, a line a trial; a command goes on where it was
stopped, and several may run side by side, each with its --shard.  `tools/real_faces.py` fetches the networks.
"""

from __future__ import annotations

import itertools
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import click
import torch

from idea_core.evaluation.comparison import shown
from idea_core.evaluation.paired import difference
from idea_core.headless.config import GenerateConfig
from idea_core.headless.jobs import ModelSource
from idea_core.headless.jobs.comparison import Comparison
from idea_core.headless.jobs.people import Person
from idea_core.headless.jobs.photo_source import PhotoSource
from idea_core.headless.jobs.trial import Trial
from idea_core.training.methods import METHODS, Method
from idea_core.training.person import LR_WIDTH
from world3d.demo import AT_ONCE, REFINING
from world3d.judge_comparison import similarity
from world3d.measure_base import Eye
from world3d.models import WIDTH
from world3d.names import known_names
from world3d.people import held_out_people
from world3d.photos import Counts, write_person
from world3d.scenes import SIZE
from world3d.somebody import TRUE, Somebody
from world3d.world import GUIDANCE, SAMPLING_STEPS, World, read

from .study import Cell, add_lines, choose, grid_cells, mean, read_lines
from .tables import markdown, rates_tried

RESULTS = Path(__file__).parent / "results"
SEARCH, REPORT = RESULTS / "world3d-search.jsonl", RESULTS / "world3d-run.jsonl"
PAGE = Path(__file__).parents[1] / "docs" / "real-faces.md"
REPORTED, SEARCHED = range(24), range(24, 26)  # people
SHORT, LONG = (25, 80), 320  # steps; rates are searched for the first
PER_PROMPT = 1  # images
FIRST_SEED = 10_000  # of images, far from those that a refinement draws
BOUNDS = {"true": "true pictures", "other": "true pictures of another person"}
INSTANT = ("seen", "seen: refined")
ONE_PHOTO = (("seen", 0), ("whole", SHORT[0]))
Line = Mapping[str, Any]
DRAWING = GenerateConfig(steps=SAMPLING_STEPS, guidance=GUIDANCE, batch_size=AT_ONCE, seed=FIRST_SEED)
MEASURES = ("identity", "second", "pack", "dlib", "hse", "obedience")
COMPARED = tuple(measure for measure in MEASURES if measure != "second")

_ID_EA, _SEEN, _PUBLISHED = METHODS["id-ea"], METHODS["enhancer"], METHODS["published"]
_WIDTHS = WIDTH / LR_WIDTH
ARMS: Mapping[str, Method] = {
    "ti": METHODS["ti"],
    "ci": METHODS["ci"],
    "celeb": METHODS["celeb"],
    "published": replace(  # the same learning rate for all, and the study's batch and captions
        _PUBLISHED.changed(
            "ID-EA as published, but few steps of 4 photos",
            batch_size=4,
            adapter_lr=_PUBLISHED.config().adapter_lr * _WIDTHS,
        ),
        captions="photo",
    ),
    "whole": _ID_EA,
    "seen": _SEEN,
    "seen: refined": METHODS["refined"],
    "whole: no enhancer": _ID_EA.changed("Enhancer frozen at random", enhancer_lr=0.0),
    "whole: no adapter": _ID_EA.changed("no Enhancer and Adapter", adapter_lr=0.0),
    "whole: no kv": _ID_EA.changed("no K/V", kv_lr=0.0),
    "whole: shut gate": _ID_EA.changed("gate shut at the start, γ = 0", gate_init=0.0),
}
PARTS = [arm for arm in ARMS if arm.startswith("whole: ")]
GRIDS: Mapping[str, Mapping[str, Sequence[float]]] = {
    "ti": {"token_lr": (3e-3, 1e-2, 3e-2, 1e-1, 3e-1)},
    "ci": {"token_lr": (3e-2, 1e-1, 3e-1, 1.0, 3.0)},
    "celeb": {"axes_lr": (0.1, 0.3, 0.5, 1.0, 2.0)},
    "whole": {"axes_lr": (0.1, 0.3), "kv_lr": (2e-3, 5e-3)},
}

LONG_GRIDS = {"ti": {"token_lr": (1e-2, 3e-2, 1e-1)}, "ci": {"token_lr": (1e-1, 3e-1, 1.0)}}
"""Rates that are tried for `LONG` steps; other methods take those for the most of `SHORT`."""


class Laboratory:
    """The world's models, people in a folder, and trials on them, which are those of `idea compare`.

    Args:
        work: folder for models and people.
        networks: folder of the judges by others.
        arms: methods by name.
    """

    drawing_dtype: str | None = "bf16"

    def __init__(self, work: Path, networks: Path, arms: Mapping[str, Method] = ARMS):
        self.world, self.people, self.arms = World.shipped(work / "models"), work / "people", arms
        self.model = ModelSource(self.world.base, "fp32", "cpu")
        self.enhancer: Path | None = self.world.folder / "enhancer.safetensors"
        self.eye = Eye.of(networks)
        self._references: dict[Path, dict[str, Any]] = {}

    def trial(self, cell: Cell) -> dict[str, Any]:
        """One line of a file of results."""
        somebody = self.somebody(cell.person, cell.photos)
        if cell.arm == "true":
            result, seconds = self.measure(somebody, sorted((somebody.folder / TRUE).iterdir())), 0.0
        elif cell.arm == "other":
            other = self.somebody(cell.person + (-1 if cell.person % 2 else 1), cell.photos)
            result, seconds = self.measure(somebody, sorted((other.folder / TRUE).iterdir())), 0.0
        else:
            with tempfile.TemporaryDirectory() as folder:
                files, seconds = self.draw(cell, somebody, Path(folder))
                result = self.measure(somebody, files)
        return self.line(cell, result, seconds)

    def line(self, cell: Cell, result: Mapping[str, float], seconds: float) -> dict[str, Any]:
        line = {"key": cell.key, "arm": cell.arm, "person": cell.person, "steps": cell.steps, "photos": cell.photos}
        figures = {key: round(value, 5) for key, value in result.items()}
        return line | {"settings": dict(cell.settings), **figures, "seconds": round(seconds, 2)}

    def draw(self, cell: Cell, somebody: Somebody, folder: Path) -> tuple[list[Path], float]:
        """Images of a person whom a trial learned, and the seconds that learning took."""
        trial = self._trial(cell, somebody, folder)
        return trial.image_files, trial.run()["seconds"]

    def _trial(self, cell: Cell, somebody: Somebody, folder: Path) -> Trial:
        settings = {**cell.settings, "steps": cell.steps}
        method = self.arms[cell.arm].changed(cell.arm, **settings)
        comparison = Comparison(
            folder=folder,
            model=self.model,
            faces=self.world.faces,
            photos=PhotoSource(crop="center", resolution=SIZE),
            methods={cell.arm: method},
            prompts=(),
            per_prompt=PER_PROMPT,
            drawing=DRAWING,
            names=known_names(),
            enhancer=self.enhancer,
            refining=REFINING,
            drawing_dtype=self.drawing_dtype,
        )
        person = replace(somebody.person, photos=somebody.photos)
        return Trial(comparison, person, cell.arm, cell.seed)

    def somebody(self, number: int, photos: int) -> Somebody:
        """A person whom no model has seen, in a folder."""
        folder = self.people / f"person{number:02}"
        if not (folder / TRUE).is_dir():
            write_person(folder, number, self._everybody[number], Counts(true_images=PER_PROMPT))
        return Somebody(folder, photos, PER_PROMPT)

    @cached_property
    def _everybody(self):
        return held_out_people()

    def measure(self, somebody: Somebody, files: Sequence[Path]) -> dict[str, float]:
        """Means over images: what the world measures, and likeness by each judge."""
        images = list(map(read, files))
        seen, references = self.eye.embed(images), self._seen_once(somebody.folder)
        judged = {name: similarity(seen[name], references[name]) for name in seen}
        return {**somebody.measure(images, self.world), **judged}

    def _seen_once(self, folder: Path) -> dict[str, Any]:
        """A person's references as the judges see them."""
        if folder not in self._references:
            self._references[folder] = self.eye.embed(list(map(read, Person.of(folder).references)))
        return self._references[folder]


def searched_cells() -> Iterator[Cell]:
    return grid_cells(SEARCHED, [*((steps, GRIDS) for steps in SHORT), (LONG, LONG_GRIDS)])


def reported_cells(chosen: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Iterator[Cell]:
    """By person, what is most telling first, so that a stopped study has whole rows."""
    few, more = SHORT
    for person in REPORTED:
        for arm in BOUNDS:
            yield Cell(arm, person, 0, 4)
        for arm, photos in (("seen", 4), ("seen", 1), ("seen: refined", 4)):
            yield Cell(arm, person, 0, photos)
        for arm, steps in itertools.product(GRIDS, SHORT):
            yield Cell(arm, person, steps, 4, chosen[str(steps)][arm])
        yield Cell("published", person, few, 4)
        yield Cell("seen", person, few, 4)
        yield Cell("whole", person, few, 1, chosen[str(few)]["whole"])
        for arm in PARTS:
            changed = {key for key, value in ARMS[arm].settings.items() if _ID_EA.settings.get(key) != value}
            rates = {key: value for key, value in chosen[str(few)]["whole"].items() if key not in changed}
            yield Cell(arm, person, few, 4, rates)
    for arms in (("ti", "ci"), ("whole",)):
        for person, arm in itertools.product(REPORTED, arms):
            yield Cell(arm, person, LONG, 4, chosen[str(LONG)].get(arm, chosen[str(more)][arm]))


def tables(lines: Sequence[Line], searched: Sequence[Line]) -> str:
    """Every method after its steps, what ID-EA has more, part by part, and rates."""
    chosen = choose(searched, GRIDS)
    current = {cell.key for cell in reported_cells(chosen)}
    lines, few = [line for line in lines if line["key"] in current], SHORT[0]
    everything = [
        *((arm, 0) for arm in INSTANT),
        *itertools.product(GRIDS, (*SHORT, LONG)),
        ("published", few),
        ("seen", few),
    ]
    rows = [[BOUNDS[bound], "", *cells(select(lines, bound))] for bound in BOUNDS]
    for arm, steps in everything:
        found = select(lines, arm, steps)
        if len(found) == len(REPORTED):  # means of other people do not compare
            rows.append([ARMS[arm].title, str(steps), *cells(found)])
    heads = ["", "steps", *MEASURES]
    title = f"{len(REPORTED)} people, four photos, {6 * PER_PROMPT} images of each person"
    photos = [
        ["one photo, " + ARMS[arm].title, str(steps), *cells(select(lines, arm, steps, 1))] for arm, steps in ONE_PHOTO
    ]
    parts = [("whole", few, part, few) for part in PARTS]
    rivals = [("whole", steps, arm, steps) for steps in (*SHORT, LONG) for arm in ("ti", "ci", "celeb")]
    fewer = [("whole", steps, arm, LONG) for steps in SHORT for arm in ("ti", "ci")]
    fewer += [("seen: refined", 0, "seen", 0), ("seen", few, "whole", few), ("seen", few, "seen", 0)]
    titles, everyones = ({arm: ARMS[arm].title for arm in arms} for arms in (GRIDS, ARMS))
    return "\n\n".join(
        [
            markdown(title, heads, rows),
            markdown("One photo", heads, photos),
            *(
                differences(title, lines, some, everyones, len(REPORTED))
                for title, some in (
                    ("At equal steps", rivals),
                    ("Fewer steps against more, and the pretrained Enhancer", fewer),
                    ("Part by part", parts),
                )
            ),
            rates_tried("Rates, searched on two other people", chosen, GRIDS, titles),
        ]
    )


def select(lines: Sequence[Line], arm: str, steps: int = 0, photos: int = 4) -> list[Line]:
    return [line for line in lines if (line["arm"], line["steps"], line["photos"]) == (arm, steps, photos)]


def cells(found: Sequence[Line], measures: Sequence[str] = MEASURES) -> list[str]:
    return [f"{mean(found, measure):.3f}" if found else "–" for measure in measures]


def differences(
    title: str,
    lines: Sequence[Line],
    pairs: Sequence[tuple[str, int, str, int]],
    titles: Mapping[str, str],
    people: int,
    measures: Sequence[str] = COMPARED,
) -> str:
    """Differences of two methods after their steps, paired over all people, with 95 % intervals."""
    rows = []
    for arm, steps, other, theirs in pairs:
        mine, others = select(lines, arm, steps), select(lines, other, theirs)
        if not len(mine) == len(others) == people:
            continue
        found = [
            difference(*({line["person"]: line[measure] for line in part} for part in (mine, others)))
            for measure in measures
        ]
        said = ["–" if one is None else shown(one, signed=True) for one in found]
        rows.append([f"{titles[arm]}, {steps} − {titles[other]}, {theirs}", *said])
    return markdown(title, ["", *measures], rows)


def write_page(page: Path, text: str) -> None:
    """Put tables into a page, where its comments say so."""
    body = "<!-- study -->\n" + text + "\n<!-- end -->"
    changed = re.sub(r"<!-- study -->.*<!-- end -->", lambda _: body, page.read_text("utf-8"), flags=re.S)
    page.write_text(changed, "utf-8")


@click.group()
def study() -> None:
    """Likeness by judges that nothing asked, obedience and time of ID-EA, its parts, and the methods before it."""


def options(command):
    """Where a part of the study runs."""
    for option in (
        click.option("--networks", type=click.Path(exists=True, path_type=Path), required=True),
        click.option("--work", type=click.Path(path_type=Path), default=Path("work/study3d")),
        click.option("--shard", default="0/1", help="Which part of the work, as 0/2 and 1/2."),
        click.option("--threads", type=int, default=1, help="Of the processor."),
    ):
        command = option(command)
    return command


@study.command()
@options
def search(networks: Path, work: Path, shard: str, threads: int) -> None:
    """Try rates on people who are not reported."""
    torch.set_num_threads(threads)
    add_lines(searched_cells(), SEARCH, shard, Laboratory(work, networks).trial)


@study.command()
@options
def run(networks: Path, work: Path, shard: str, threads: int) -> None:
    """Measure every cell on the people who are reported."""
    torch.set_num_threads(threads)
    add_lines(reported_cells(choose(read_lines(SEARCH), GRIDS)), REPORT, shard, Laboratory(work, networks).trial)


@study.command("tables")
def write_tables() -> None:
    """Write the tables of the page."""
    write_page(PAGE, tables(read_lines(REPORT), read_lines(SEARCH)))


if __name__ == "__main__":
    study()
