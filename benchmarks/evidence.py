"""The tables and plots of docs/evidence.md, from the study's results:  python -m benchmarks.evidence"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot
from scipy import stats

from .study import ARMS, BOUNDS, BUDGETS, GRIDS, LONG, MAIN, REPORT, SEARCH, SEARCH_STEPS, choose, read_lines

DOCS = Path(__file__).parents[1] / "docs"
PAGE, PLOT = DOCS / "evidence.md", DOCS / "images" / "study.svg"
TITLES = {"true": "true pictures", "other": "another person's", **{arm: method.title for arm, method in ARMS.items()}}
MEASURES = ("identity", "second", "verified", "obedience", "diversity")
RIVALS = ("ti", "ci", "celeb", "ti+kv", "ci+kv", "published")
Line = Mapping[str, Any]


def main() -> None:
    lines = read_lines(REPORT)
    sections = [
        budgets(lines),
        one_photo(lines),
        comparisons("ID-EA against the methods before it", lines, "whole", RIVALS),
        comparisons("Each part left out or changed", lines, "whole", [a for a in ARMS if a not in MAIN]),
        rates(choose(read_lines(SEARCH))),
    ]
    text = PAGE.read_text("utf-8")
    tables = "<!-- tables -->\n" + "\n\n".join(sections) + "\n<!-- end -->"
    PAGE.write_text(re.sub(r"<!-- tables -->.*<!-- end -->", lambda _: tables, text, flags=re.S), "utf-8")
    plot(lines)


def budgets(lines: Sequence[Line]) -> str:
    """Every method at every budget, from four photos."""
    rows = [[TITLES[bound], "", *means(select(lines, bound)), ""] for bound in BOUNDS]
    fastest = np.mean([line["seconds"] for line in select(lines, "whole", BUDGETS[0])])
    for arm in MAIN:
        for steps in (*BUDGETS, *([LONG] if arm == "ti" else [])):
            if found := select(lines, arm, steps):
                time = np.mean([line["seconds"] for line in found]) / fastest
                rows.append([TITLES[arm], str(steps), *means(found), f"{time:.1f}"])
    people = len({line["person"] for line in lines})
    title = f"Four photos, {people} people, 12 pictures each; time against ID-EA's {BUDGETS[0]} steps"
    return table(title, ["", "steps", *MEASURES, "time"], rows)


def one_photo(lines: Sequence[Line]) -> str:
    found = {arm: select(lines, arm, BUDGETS[0], 1) for arm in MAIN}
    rows = [[TITLES[arm], *means(lines_of)] for arm, lines_of in found.items() if lines_of]
    return table(f"One photo, {BUDGETS[0]} steps", ["", *MEASURES], rows)


def comparisons(title: str, lines: Sequence[Line], arm: str, others: Iterable[str]) -> str:
    """Paired differences over people at the middle budget, with 95 % intervals and p of a paired t-test."""
    rows = []
    for other in others:
        row = [TITLES[other]]
        for measure in ("identity", "second", "obedience"):
            mine, theirs = paired(lines, arm, other, measure)
            if len(mine) > 1:
                difference = mine - theirs
                half = stats.t.ppf(0.975, len(mine) - 1) * stats.sem(difference)
                p = stats.ttest_rel(mine, theirs).pvalue
                row += [f"{difference.mean():+.3f} ± {half:.3f}", "< .0001" if p < 1e-4 else f"{p:.4f}"]
        if len(row) > 1:
            rows.append(row)
    heads = ["ID-EA minus", "identity", "p", "second", "p", "obedience", "p"]
    return table(f"{title}: paired differences at {SEARCH_STEPS} steps", heads, rows)


def rates(chosen: Mapping[str, Mapping[str, float]]) -> str:
    rows = []
    for arm, settings in chosen.items():
        tried = "; ".join(f"{key} {', '.join(f'{value:g}' for value in values)}" for key, values in GRIDS[arm].items())
        taken = ", ".join(f"{key} {value:g}" for key, value in settings.items())
        rows.append([TITLES[arm], tried, taken])
    return table("Rates, searched on six other people", ["", "tried", "taken"], rows)


def plot(lines: Sequence[Line]) -> None:
    """Identity and obedience against steps, with 95 % intervals."""
    matplotlib.rcParams["svg.hashsalt"] = "id-ea"
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for axis, measure in zip(axes, ("identity", "obedience")):
        for arm in MAIN:
            points = [(steps, select(lines, arm, steps)) for steps in (*BUDGETS, LONG)]
            points = [(steps, np.array([line[measure] for line in found])) for steps, found in points if found]
            if points:
                errors = [1.96 * stats.sem(values) if len(values) > 1 else 0 for _, values in points]
                means_ = [values.mean() for _, values in points]
                axis.errorbar([s for s, _ in points], means_, errors, label=TITLES[arm], marker="o", ms=3, capsize=2)
        if found := select(lines, "true"):
            axis.axhline(np.mean([line[measure] for line in found]), color="gray", ls=":", label="true pictures")
        axis.set(xscale="log", xlabel="steps", ylabel=measure)
        axis.grid(alpha=0.3)
    axes[1].legend(fontsize=7)
    PLOT.parent.mkdir(exist_ok=True)
    figure.savefig(PLOT, metadata={"Date": None})


def select(lines: Sequence[Line], arm: str, steps: int = 0, photos: int = 4) -> list[Line]:
    return [line for line in lines if (line["arm"], line["steps"], line["photos"]) == (arm, steps, photos)]


def paired(lines: Sequence[Line], arm: str, other: str, measure: str) -> tuple[np.ndarray, np.ndarray]:
    """Values of two arms for the people whom both have."""
    mine, theirs = (
        {line["person"]: line[measure] for line in select(lines, each, SEARCH_STEPS)} for each in (arm, other)
    )
    both = sorted(mine.keys() & theirs.keys())
    return np.array([mine[person] for person in both]), np.array([theirs[person] for person in both])


def means(lines: Sequence[Line]) -> list[str]:
    return [f"{np.mean([line[measure] for line in lines]):.3f}" if lines else "–" for measure in MEASURES]


def table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"### {title}", "", "| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


if __name__ == "__main__":
    main()
