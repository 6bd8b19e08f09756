"""The tables and plots of docs/evidence.md, from the study's results:  python -m benchmarks.evidence"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, product
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot
from scipy import stats

from idea_core.evaluation.comparison import shown, shown_p
from idea_core.evaluation.paired import difference

from .people import LESSON, PEOPLE, rows_of
from .study import (
    AGAIN,
    ARMS,
    BOUNDS,
    BUDGETS,
    CONFIRM,
    GRIDS,
    INSTANT,
    LONG,
    MAIN,
    PARTS,
    REPORT,
    REPORTED,
    SEARCH,
    SEEDS,
    SHORT,
    choose,
    mean,
    read_lines,
)
from .tables import markdown, rates_tried

STEPS_SHOWN = (0, 25, 80, 320, 2000)
DOCS = Path(__file__).parents[1] / "docs"
PAGE, PLOT = DOCS / "evidence.md", DOCS / "images" / "study.svg"
TITLES = {
    "true": "true pictures",
    "other": "true pictures of another person",
    **{arm: method.title for arm, method in ARMS.items()},
}
MEASURES = ("identity", "second", "verified", "obedience", "diversity")
RIVALS = ("ti", "ci", "celeb", "ti+kv", "ci+kv", "published", "cross")
BY_LIKENESS, REFINED = "seen: likeness", "seen: refined"
DIFFERENCES = ("", "identity", "p", "second", "p", "obedience", "p")
Line = Mapping[str, Any]


def main() -> None:
    lines = read_lines(REPORT)
    fast, standard, thorough = BUDGETS
    sections = [
        budgets(lines),
        one_photo(lines),
        comparisons("Trained on the person alone, against the methods before it", lines, "whole", RIVALS, fast),
        comparisons("The same after more steps", lines, "whole", RIVALS, standard),
        comparisons("The same after many steps", lines, "whole", RIVALS, thorough),
        comparisons("Part by part", lines, "whole", PARTS["whole"], fast),
        comparisons("Part by part, from the published start", lines, "cross", PARTS["cross"], fast),
        comparisons("With an Enhancer that has seen people", lines, "seen", [*RIVALS, "whole"], fast),
        comparisons("Part by part", lines, "seen", [part for part in PARTS["seen"] if part != BY_LIKENESS], fast),
        comparisons("Without any training", lines, "seen", ["seen: no adapter", "seen: same face"], 0),
        instant(lines),
        refined(lines),
        every_seed(lines),
        at_best(lines, (BY_LIKENESS, fast), (*RIVALS, "whole", "seen")),
        comparisons("The likeness loss", lines, BY_LIKENESS, ["seen", "seen: averaged"], fast),
        how_many_people(read_lines(PEOPLE)),
        comparisons("On 16 other people", read_lines(CONFIRM), "whole", RIVALS, fast),
        comparisons("On 16 other people", read_lines(CONFIRM), "seen", [*RIVALS, "whole"], fast),
        comparisons("Fewer steps against more", lines, "whole", [*RIVALS], fast, standard),
        comparisons("Fewer steps against more", lines, "whole", [*RIVALS, "whole"], standard, thorough),
        comparisons("Fewer steps against more", lines, "seen", [*RIVALS, "whole"], fast, standard),
        comparisons("Fewer steps against more", lines, "seen", [*RIVALS, "whole"], fast, thorough),
        against_long(lines),
        rates_tried("Rates, searched on four other people", choose(read_lines(SEARCH)), GRIDS, TITLES),
    ]
    text = PAGE.read_text("utf-8")
    tables = "<!-- tables -->\n" + "\n\n".join(filter(None, sections)) + "\n<!-- end -->"
    PAGE.write_text(re.sub(r"<!-- tables -->.*<!-- end -->", lambda _: tables, text, flags=re.S), "utf-8")
    plot(lines)


def budgets(lines: Sequence[Line]) -> str:
    """Every method at every budget, from four photos."""
    bounds = {bound: select(lines, bound) for bound in BOUNDS}
    rows = [[TITLES[bound], "", str(len(found)), *means(found), ""] for bound, found in bounds.items()]
    fastest = np.median([line["seconds"] for line in select(lines, "whole", BUDGETS[0])])
    for arm in (*MAIN, REFINED, BY_LIKENESS):
        for steps in (0, *BUDGETS, LONG):
            if found := select(lines, arm, steps):
                time = np.median([line["seconds"] for line in found]) / fastest
                rows.append([TITLES[arm], str(steps), str(len(found)), *means(found), f"{time:.1f}"])
    title = f"Four photos, 12 pictures of each person; training time against that of ID-EA's {BUDGETS[0]} steps"
    return markdown(title, ["", "steps", "people", *MEASURES, "time"], rows)


def one_photo(lines: Sequence[Line]) -> str:
    found = {arm: select(lines, arm, BUDGETS[0], 1) for arm in MAIN}
    rows = [[TITLES[arm], *means(lines_of)] for arm, lines_of in found.items() if lines_of]
    return markdown(f"One photo, {BUDGETS[0]} steps", ["", *MEASURES], rows)


def comparisons(
    title: str, lines: Sequence[Line], arm: str, others: Iterable[str], steps: int, theirs: int | None = None
) -> str:
    """Differences, paired over people; nothing if none was measured. `theirs` are the others' steps if not the same."""
    after = steps if theirs is None else theirs
    rows = [[TITLES[other], *differences(lines, (arm, steps), (other, after))] for other in others]
    if all(set(row[1:]) == {"–"} for row in rows):
        return ""
    said = f"{steps} steps" if theirs is None else f"{steps} steps against {theirs}"
    return markdown(f"{title}: {TITLES[arm]} minus …, {said}", DIFFERENCES, rows)


def against_long(lines: Sequence[Line]) -> str:
    """Few steps of ours against very many of Textual Inversion's."""
    rows = []
    for arm, steps in (("whole", SHORT[0]), ("whole", SHORT[1]), *((arm, 0) for arm in INSTANT), ("seen", SHORT[0])):
        mine, theirs = (
            np.median([line["seconds"] for line in select(lines, *key)]) for key in ((arm, steps), ("ti", LONG))
        )
        ratio = f"1 : {theirs / mine:.0f}"
        rows.append([f"{TITLES[arm]}, {steps} steps", *differences(lines, (arm, steps), ("ti", LONG)), ratio])
    return markdown(f"… minus Textual Inversion, {LONG} steps", [*DIFFERENCES, "training time"], rows)


def instant(lines: Sequence[Line]) -> str:
    """No training against what the others reach at their best, and by photos."""
    return "\n\n".join([at_best(lines, ("seen", 0), ("ti", "ci", "celeb", "whole")), by_photos(lines, "seen")])


def refined(lines: Sequence[Line]) -> str:
    """The same of people who were drawn, compared and corrected, besides what that is worth."""
    return "\n\n".join(
        [
            comparisons("What looking is worth", lines, REFINED, ["seen"], 0),
            at_best(lines, (REFINED, 0), (*RIVALS, "whole", "seen", "seen: averaged", BY_LIKENESS)),
            by_photos(lines, REFINED),
        ]
    )


def by_photos(lines: Sequence[Line], arm: str) -> str:
    found = {photos: select(lines, arm, 0, photos) for photos in (1, 2, 4)}
    rows = [[str(number), *means(lines_of)] for number, lines_of in found.items() if lines_of]
    return markdown(f"{TITLES[arm]}, without any training, by photos", ["photos", *MEASURES], rows)


def every_seed(lines: Sequence[Line]) -> str:
    """What was measured with several seeds, and differences of people's means over the seeds that both have."""
    titles = {key: f"{TITLES[key[0]]}, {key[1]} steps" for key in AGAIN}
    measured = {key: [seed for seed in SEEDS if len(select(lines, *key, seed=seed)) == len(REPORTED)] for key in AGAIN}
    rows, others = [], {}
    for key, seeds in measured.items():
        found = [select(lines, *key, seed=seed) for seed in seeds]
        figures = [" / ".join(f"{mean(part, measure):.3f}" for part in found) for measure in MEASURES[:2]]
        rows.append([titles[key], *figures, f"{mean(list(chain(*found)), 'obedience'):.3f}"])
    with_enhancer, without = ([key for key in AGAIN if key[0].startswith("seen") is seen] for seen in (True, False))
    for mine, theirs in product(with_enhancer, without):
        seeds = [seed for seed in measured[mine] if seed in measured[theirs]]
        ours, rivals = (over_seeds(lines, key, seeds) for key in (mine, theirs))
        others[f"{titles[mine]}, minus {titles[theirs]}"] = [str(len(seeds)), *paired(ours, rivals)]
    return "\n\n".join(
        [
            markdown("By seed of training and pictures", ["", "identity", "second", "obedience"], rows),
            markdown(
                "Means over seeds",
                ["", "seeds", *DIFFERENCES[1:]],
                [[title, *cells] for title, cells in others.items()],
            ),
        ]
    )


def over_seeds(lines: Sequence[Line], key: tuple[str, int], seeds: Sequence[int]) -> list[Line]:
    """A line for each person: means over seeds."""
    parts = [{line["person"]: line for line in select(lines, *key, seed=seed)} for seed in seeds]
    return [
        {"person": person} | {measure: mean([part[person] for part in parts], measure) for measure in MEASURES}
        for person in REPORTED
    ]


def at_best(lines: Sequence[Line], mine: tuple[str, int], others: Iterable[str]) -> str:
    """One arm after its steps against what others reach with as many steps as they were given."""
    rows = []
    for arm in others:
        budgets = [steps for steps in (*BUDGETS, LONG) if select(lines, arm, steps)]
        best = max(budgets, key=lambda steps: mean(select(lines, arm, steps), "identity"))
        rows.append([f"{TITLES[arm]}, {best} steps", *differences(lines, mine, (arm, best))])
    said = f"{mine[1]} steps" if mine[1] else "without any training"
    return markdown(f"{TITLES[mine[0]]}, {said}, minus …, after the steps at which that is best", DIFFERENCES, rows)


def how_many_people(lines: Sequence[Line]) -> str:
    """Enhancers that have seen fewer people, or fewer pictures of each; "" where none was trained."""
    if not lines:
        return ""
    rows = []
    for people, pictures, seeds in rows_of(lines):
        of_seeds = " / ".join(f"{mean(persons, 'identity'):.3f}" for persons in seeds)
        rows.append([str(people or "all"), str(pictures), *means(list(chain(*seeds))), of_seeds])
    title = f"Enhancers after {LESSON.steps} steps by text alone: 16 other people, four photos, no training"
    return markdown(title, ["people seen", "pictures of each", *MEASURES, "identity by seed"], rows)


def differences(lines: Sequence[Line], mine: tuple[str, int], theirs: tuple[str, int]) -> list[str]:
    """What `paired` says of one arm's lines and another's."""
    return paired(select(lines, *mine), select(lines, *theirs))


def paired(mine: Sequence[Line], theirs: Sequence[Line]) -> list[str]:
    """Mean, 95 % interval and p of a paired t-test over people, for each of three measures."""
    cells = []
    for measure in ("identity", "second", "obedience"):
        ours, others = ({line["person"]: line[measure] for line in part} for part in (mine, theirs))
        found = difference(ours, others)
        known = found is not None and found.half is not None
        cells += [shown(found, signed=True), shown_p(found.p)] if known else ["–", "–"]
    return cells


def plot(lines: Sequence[Line]) -> None:
    """Identity and obedience against steps, with 95 % intervals."""
    matplotlib.rcParams["svg.hashsalt"] = "id-ea"
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for axis, measure in zip(axes, ("identity", "obedience")):
        for arm in MAIN:
            points = [(steps, select(lines, arm, steps)) for steps in (0, *BUDGETS, LONG)]
            points = [(steps, np.array([line[measure] for line in found])) for steps, found in points if found]
            if points:
                errors = [1.96 * stats.sem(values) if len(values) > 1 else 0 for _, values in points]
                means_ = [values.mean() for _, values in points]
                axis.errorbar([s for s, _ in points], means_, errors, label=TITLES[arm], marker="o", ms=3, capsize=2)
        if found := select(lines, "true"):
            axis.axhline(np.mean([line[measure] for line in found]), color="gray", ls=":", label="true pictures")
        axis.set_xscale("symlog", linthresh=20)
        axis.set_xticks(STEPS_SHOWN, labels=map(str, STEPS_SHOWN))
        axis.set(xlabel="steps", ylabel=measure, xlim=(-2, 2500))
        axis.grid(alpha=0.3)
    axes[1].legend(fontsize=7)
    PLOT.parent.mkdir(exist_ok=True)
    figure.savefig(PLOT, metadata={"Date": None})


def select(lines: Sequence[Line], arm: str, steps: int = 0, photos: int = 4, seed: int = 0) -> list[Line]:
    wanted = arm, steps, photos, seed
    return [line for line in lines if (line["arm"], line["steps"], line["photos"], line.get("seed", 0)) == wanted]


def means(lines: Sequence[Line]) -> list[str]:
    return [f"{np.mean([line[measure] for line in lines]):.3f}" if lines else "–" for measure in MEASURES]


if __name__ == "__main__":
    main()
