"""The study on a flow-matching transformer that reads a language model: what of ID-EA holds there, beside LoRAs.

    python -m benchmarks.flow_study search --base work/flow/base --networks work/faces
    python -m benchmarks.flow_study run --base work/flow/base --networks work/faces
    python -m benchmarks.flow_study bleed --base work/flow/base --networks work/faces
    python -m benchmarks.flow_study tables                 docs/transformers.md

The base model is that of `world3d.flow`, the people and judges are those of `benchmarks.study3d`, and so is how a
command goes on.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import torch

from idea_core.training.methods import METHODS, Method

from .flow_laboratory import BARE, JUDGES, LORA, FlowLaboratory
from .study import Cell, add_lines, choose, grid_cells, mean, read_lines
from .study3d import BOUNDS, LONG, MEASURES, RESULTS, SHORT, Line, cells, differences, options, select, write_page
from .tables import markdown, rates_tried

SEARCH, REPORT, BLEED = (RESULTS / f"flow-{name}.jsonl" for name in ("search", "run", "bleed"))
PAGE = Path(__file__).parents[1] / "docs" / "transformers.md"
REPORTED, SEARCHED = range(32), range(32, 34)  # people
PAIRS = range(0, 32, 2)  # the first of two
FEW, MORE = SHORT
OBEDIENT = 0.85  # of what is asked for, among which rates are chosen; the base model's own people obey .94
CHOOSING = "hse"
"""The judge by whom rates are chosen. The world's own recogniser prefers rates at which the others see a face decay."""
MAIN = (LORA, "in", "out", "ti-in")  # what is measured first

_ID_EA = METHODS["id-ea"]


def _variant(title: str, space: str, **settings: Any) -> Method:
    return _ID_EA.changed(title, space=space, **settings)


ARMS: Mapping[str, Method] = {
    "ti-in": METHODS["ti"].changed("Textual Inversion", space="input"),
    "ti-out": METHODS["ti"].changed("Textual Inversion in output space", space="output"),
    "axes-in": _variant("names' axes alone", "input", **BARE),
    "axes-out": _variant("names' axes alone in output space", "output", **BARE),
    "in": _variant("ID-EA", "input", kv_scope="person"),
    "out": _variant("ID-EA in output space", "output", kv_scope="person"),
    "in: no adapter": _variant("no Adapter", "input", kv_scope="person", adapter_lr=0.0, enhancer_lr=None),
    "out: no adapter": _variant(
        "no Adapter in output space", "output", kv_scope="person", adapter_lr=0.0, enhancer_lr=None
    ),
    "in: no kv": _variant("no K/V", "input", kv_lr=0.0),
    "out: no kv": _variant("no K/V in output space", "output", kv_lr=0.0),
    "in: text": _variant("K/V at all text", "input", kv_scope="text"),
    "out: text": _variant("K/V at all text, in output space", "output", kv_scope="text"),
    "in: whole": _variant("K/V everywhere", "input", kv_scope="whole"),
    "out: whole": _variant("K/V everywhere, in output space", "output", kv_scope="whole"),
    "seen": METHODS["enhancer"],
}
TITLES = {arm: method.title for arm, method in ARMS.items()} | {LORA: "LoRA"}
_TOKENS, _AXES = (3e-3, 1e-2, 3e-2, 1e-1), (0.03, 0.1, 0.3, 1.0)
_RATES = (2e-4, 5e-4, 1e-3, 2e-3, 5e-3)
_KV = {"axes_lr": (0.1, 0.3), "kv_lr": _RATES}
_WIDER = {"axes_lr": (0.1,), "kv_lr": _RATES}
GRIDS: Mapping[str, Mapping[str, Sequence[float]]] = {
    LORA: {"kv_lr": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)},  # of all its matrices
    "in": _KV,
    "out": _KV,
    "ti-in": {"token_lr": _TOKENS},
    "ti-out": {"token_lr": tuple(10 * rate for rate in _TOKENS)},
    "axes-in": {"axes_lr": _AXES},
    "axes-out": {"axes_lr": _AXES},
    "out: text": _WIDER,
    "out: whole": _WIDER,
}
LONG_GRIDS = {"ti-in": {"token_lr": (1e-2, 3e-2, 1e-1)}, LORA: {"kv_lr": (3e-4, 1e-3, 3e-3)}}
"""Rates that are tried for `LONG` steps."""
PARTS = [arm for arm in ARMS if ": " in arm]
PARTS_OUT = [arm for arm in PARTS if arm.startswith("out")]
WITHOUT_ADAPTER = [arm for arm in GRIDS if arm not in (*MAIN, *PARTS)]  # Textual Inversion and axes
BLEEDING = (LORA, "in", "out")
LOST = 0.9  # by dlib, to whom any two faces are more alike: some image has no face, which counts as 0
TWO = [f"{asked} {kind} {judge}" for asked in ("together", "alone") for judge in JUDGES for kind in ("own", "bleed")]
Chosen = Mapping[str, Mapping[str, Mapping[str, float]]]


def searched_cells() -> Iterator[Cell]:
    """What is measured first is searched first."""
    main, bare, parts = ({arm: GRIDS[arm] for arm in arms if arm in GRIDS} for arms in (MAIN, WITHOUT_ADAPTER, PARTS))
    for budget in ((MORE, main), (FEW, main), (MORE, bare), (MORE, parts), (FEW, bare), (LONG, LONG_GRIDS)):
        yield from grid_cells(SEARCHED, [budget])


def chosen_rates(searched: Sequence[Line]) -> Chosen:
    """By steps and arm: the rates that the search found best."""
    return choose(searched, GRIDS, OBEDIENT, CHOOSING)


def rates_of(arm: str, steps: int, chosen: Chosen) -> Mapping[str, float]:
    """The rates that the search chose for an arm; a part without its own takes those of the whole that it has."""
    known = chosen[str(steps)]
    if arm in known:
        return known[arm]
    return {key: value for key, value in known[_whole(arm)].items() if ARMS[arm].settings.get(key) != 0.0}


def _whole(part: str) -> str:
    return part.split(": ")[0]


def reported_cells(chosen: Chosen, enhancer: bool) -> Iterator[Cell]:
    """What is most telling first, and only where rates were searched."""
    rounds: list[list[tuple[str, int]]] = [
        [(arm, MORE) for arm in MAIN[:3]],
        [(arm, MORE) for arm in MAIN[3:]],
        [(arm, FEW) for arm in MAIN],
        [(arm, MORE) for arm in WITHOUT_ADAPTER],
        [(arm, MORE) for arm in PARTS_OUT],
        [(arm, MORE) for arm in PARTS if arm not in PARTS_OUT],
        [(arm, FEW) for arm in WITHOUT_ADAPTER],
        [(arm, LONG) for arm in LONG_GRIDS],
    ]
    for person, arm in itertools.product(REPORTED, BOUNDS):
        yield Cell(arm, person, 0, 4)
    if enhancer:
        for person in REPORTED:
            yield Cell("seen", person, 0, 4)
    for some, person in itertools.product(rounds, REPORTED):
        for arm, steps in some:
            if _whole(arm) in chosen.get(str(steps), {}):
                yield Cell(arm, person, steps, 4, rates_of(arm, steps, chosen))


def paired_cells(chosen: Chosen) -> Iterator[Cell]:
    for first in PAIRS:
        yield Cell("true", first, 0, 4)
    for first, arm in itertools.product(PAIRS, BLEEDING):
        yield Cell(arm, first, MORE, 4, rates_of(arm, MORE, chosen))


def tables(lines: Sequence[Line], two: Sequence[Line], searched: Sequence[Line]) -> str:
    """Every method after its steps, two people at once, what one method has more than another, and rates.

    On the people whom LoRA and ID-EA have both learned, so that means are of the same people.
    """
    chosen = chosen_rates(searched)
    current = {cell.key for cell in (*reported_cells(chosen, True), *paired_cells(chosen))}
    lines, two = (_of_everybody([line for line in some if line["key"] in current]) for some in (lines, two))
    people = len(select(lines, LORA, MORE))
    searched_grids = {arm: grid for arm, grid in GRIDS.items() if any(arm in rates for rates in chosen.values())}
    rows = [[BOUNDS[bound], "", *cells(select(lines, bound))] for bound in BOUNDS]
    for arm, steps in [("seen", 0), *itertools.product([*MAIN, *WITHOUT_ADAPTER, *PARTS], (FEW, MORE, LONG))]:
        found = select(lines, arm, steps)
        if found and len(found) == people:  # means of other people do not compare
            rows.append([TITLES[arm], str(steps), *cells(found)])
    rivals = [(arm, steps, LORA, steps) for steps in SHORT for arm in ("in", "out")]
    rivals += [(arm, MORE, LORA, LONG) for arm in ("in", "out")]
    rivals += [(arm, steps, "ti-in", steps) for steps in SHORT for arm in ("in", "out")]
    rivals += [("out", MORE, "ti-out", MORE)]
    parts = [(_whole(arm), MORE, arm, MORE) for arm in PARTS if len(select(lines, arm, MORE)) == people]
    title = f"{people} people, four photos, 6 images of each person"
    return "\n\n".join(
        [
            _beside_a_lora(lines, two),
            markdown(title, ["", "steps", *MEASURES], rows),
            differences("Against a LoRA and Textual Inversion", lines, rivals, TITLES, people),
            *([differences("Part by part", lines, parts, TITLES, people)] if parts else []),
            _bleeding(two),
            *_bleeding_differences(two),
            rates_tried("Rates, searched on two other people", chosen, searched_grids, TITLES),
        ]
    )


def _of_everybody(lines: Sequence[Line]) -> list[Line]:
    """The lines of people, or pairs, whom each of the first methods has."""
    known = [{line["person"] for line in select(lines, arm, MORE)} for arm in MAIN[:3]]
    return [line for line in lines if line["person"] in set.intersection(*known)]


def _beside_a_lora(lines: Sequence[Line], two: Sequence[Line]) -> str:
    """Shares of what a LoRA reaches after `MORE` steps, all counted from the level of strangers."""

    def above(arm: str, steps: int, measure: str) -> float:
        return mean(select(lines, arm, steps), measure) - mean(select(lines, "other"), measure)

    def bled(arm: str, measure: str) -> float:
        return mean(select(two, arm, MORE), measure) - mean(select(two, "true"), "together bleed pack")

    rows = []
    for arm, steps in itertools.product(("in", "out", *PARTS), (FEW, MORE)):
        if len(select(lines, arm, steps)) < len(select(lines, LORA, MORE)):
            continue
        likeness = [above(arm, steps, one) / above(LORA, MORE, one) for one in ("identity", "pack", "hse")]
        obeyed = above(arm, steps, "obedience") - above(LORA, MORE, "obedience")
        said = [*(f"{100 * share:.0f} %" for share in likeness), f"{obeyed:+.3f}"]
        for measure in ("together bleed pack", "alone bleed pack"):
            known = steps == MORE and len(select(two, arm, MORE)) == len(select(two, LORA, MORE))
            said.append(f"{bled(arm, measure):+.3f} for {bled(LORA, measure):+.3f}" if known else "")
        rows.append([TITLES[arm], str(steps), *said])
    heads = [
        "",
        "steps",
        "likeness, own recogniser",
        "by pack",
        "by hse",
        "obedience",
        "bleeding, both asked for",
        "one asked for",
    ]
    return markdown(f"Beside a LoRA of {MORE} steps", heads, rows)


def _bleeding(two: Sequence[Line]) -> str:
    """Likeness to whom an image should show and to the other, where two people are applied."""
    rows, pairs = [], len(select(two, LORA, MORE))
    for arm, steps in (("true", 0), *((arm, MORE) for arm in BLEEDING)):
        found = select(two, arm, steps)
        if found and len(found) == pairs:
            asked = [measure for measure in TWO if measure in found[0]]
            said = [f"{mean(found, measure):.3f}" for measure in asked]
            rows.append([TITLES.get(arm, BOUNDS.get(arm, "")), *said, *[""] * (len(TWO) - len(asked))])
    return markdown(f"Two people applied, {pairs} pairs, {MORE} steps", ["", *TWO], rows)


def _bleeding_differences(two: Sequence[Line]) -> list[str]:
    """Tables for images of both of the two, for the pairs in which all faces are there, and for images of one."""
    rivals = [(arm, MORE, LORA, MORE) for arm in ("in", "out")]
    lost = {line["person"] for line in two if line["together own dlib"] < LOST}
    whole, found = [line for line in two if line["person"] not in lost], []
    for asked, which, lines in (
        ("together", "", two),
        ("together", ", the {} in which every method shows all faces", whole),
        ("alone", "", two),
    ):
        measures = [measure for measure in TWO if measure.startswith(asked)]
        pairs = len(select(lines, LORA, MORE))
        title = f"Two people applied, {asked}{which.format(pairs)}, against LoRAs"
        found.append(differences(title, lines, rivals, TITLES, pairs, measures))
    return found


@click.group()
def study() -> None:
    """Likeness and bleeding on a flow-matching transformer, beside LoRAs."""


def on_flow(command):
    command = click.option("--enhancer", type=click.Path(exists=True, path_type=Path), help="A trained ID-Enhancer.")(
        command
    )
    return options(click.option("--base", type=click.Path(exists=True, path_type=Path), required=True)(command))


@study.command()
@on_flow
def search(networks: Path, work: Path, shard: str, threads: int, base: Path, enhancer: Path | None) -> None:
    """Try rates on people who are not reported."""
    torch.set_num_threads(threads)
    add_lines(searched_cells(), SEARCH, shard, FlowLaboratory(work, networks, ARMS, base, enhancer).trial)


@study.command()
@on_flow
def run(networks: Path, work: Path, shard: str, threads: int, base: Path, enhancer: Path | None) -> None:
    """Measure every cell on the people who are reported."""
    torch.set_num_threads(threads)
    todo = reported_cells(chosen_rates(read_lines(SEARCH)), enhancer is not None)
    add_lines(todo, REPORT, shard, FlowLaboratory(work, networks, ARMS, base, enhancer).trial)


@study.command()
@on_flow
def bleed(networks: Path, work: Path, shard: str, threads: int, base: Path, enhancer: Path | None) -> None:
    """Apply two people at once, ask for one of them, then for both."""
    torch.set_num_threads(threads)
    todo = paired_cells(chosen_rates(read_lines(SEARCH)))
    add_lines(todo, BLEED, shard, FlowLaboratory(work, networks, ARMS, base, enhancer).pair)


@study.command("tables")
def write_tables() -> None:
    """Write the tables of the page."""
    write_page(PAGE, tables(*map(read_lines, (REPORT, BLEED, SEARCH))))


if __name__ == "__main__":
    study()
