"""Tables of a comparison: means over people with intervals, and paired differences (Celeb Basis, arXiv 2306.00926)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .paired import Estimate, difference, estimate, per_person

Result = Mapping[str, Any]
"""Result of a trial: "person", "method", "repetition", and its measures or an "error"."""

MEASURES = {
    "mean_similarity_strict": "identity",
    "mean_similarity_detected": "identity, detected",
    "witness_similarity_strict": "witness",
    "detection_rate": "detection",
    "prompt_similarity": "prompt",
}
"""Measure → its short title. Identity and witness count an image without a face as 0."""
COSTS = {"seconds": "seconds", "peak_memory_bytes": "GiB", "bytes": "KiB"}
"""Cost → its unit in tables: the median of trainings, the greatest peak, the median of files."""
_UNITS: dict[str, tuple[Callable[..., Any], float]] = {
    "seconds": (np.median, 1),
    "peak_memory_bytes": (np.max, 2**30),
    "bytes": (np.median, 2**10),
}


@dataclass(frozen=True, eq=False)
class ComparisonTables:
    """What trials say of methods.

    Attributes:
        titles: of the methods, by name, in order.
        results: of all trials, failed ones too.
        against: method that the others are subtracted from.
    """

    titles: Mapping[str, str]
    results: Sequence[Result]
    against: str

    @cached_property
    def done(self) -> list[Result]:
        """The results of trials that came to their end."""
        return [result for result in self.results if "error" not in result]

    @cached_property
    def failed(self) -> list[Result]:
        return [result for result in self.results if "error" in result]

    @cached_property
    def measures(self) -> list[str]:
        """Those that are known for any trial."""
        return [key for key in MEASURES if any(result[key] is not None for result in self.done)]

    def values(self, method: str, measure: str) -> dict[str, float]:
        """Each person's mean over repetitions."""
        mine = [result for result in self.done if result["method"] == method]
        return per_person([result["person"] for result in mine], [result[measure] for result in mine])

    def mean(self, method: str, measure: str) -> Estimate | None:
        return estimate(list(self.values(method, measure).values()))

    def minus(self, method: str, measure: str) -> Estimate | None:
        """`against` minus another method, paired over people."""
        return difference(self.values(self.against, measure), self.values(method, measure))

    def cost(self, method: str, cost: str) -> float | None:
        """A method's cost in the unit of `COSTS`; None if it was not measured."""
        known = [result[cost] for result in self.done if result["method"] == method and result[cost] is not None]
        combine, unit = _UNITS[cost]
        return float(combine(known)) / unit if known else None

    def rows(self) -> list[dict[str, str]]:
        """The table, a row for each method."""
        return [
            {
                "method": title,
                "people": str(len(self.values(method, "mean_similarity_strict"))),
                **{MEASURES[key]: shown(self.mean(method, key)) for key in self.measures},
                **{unit: _number(self.cost(method, key)) for key, unit in COSTS.items()},
            }
            for method, title in self.titles.items()
        ]

    def differences(self) -> list[dict[str, str]]:
        """The table of `against` minus each other method, with p of a paired t-test."""
        rows = []
        for method, title in self.titles.items():
            if method != self.against:
                row = {"minus": title}
                for key in self.measures:
                    found = self.minus(method, key)
                    row[MEASURES[key]] = shown(found, signed=True)
                    row[f"p ({MEASURES[key]})"] = "–" if found is None or found.p is None else shown_p(found.p)
                rows.append(row)
        return rows

    def as_json(self) -> dict[str, Any]:
        """All figures, with the trials."""

        def plain(found: Estimate | None) -> dict[str, Any] | None:
            return None if found is None else found._asdict()

        methods = {
            method: {
                "title": title,
                **{key: plain(self.mean(method, key)) for key in self.measures},
                **{key: self.cost(method, key) for key in COSTS},
                "minus": {key: plain(self.minus(method, key)) for key in self.measures},
            }
            for method, title in self.titles.items()
        }
        return {"against": self.against, "methods": methods, "trials": list(self.results)}

    @property
    def text(self) -> str:
        """Both tables, and what failed, for a terminal."""
        parts = [text_table(self.rows()), f"{self.titles[self.against]} minus …", text_table(self.differences())]
        failed = [f"{result['person']}, {result['method']}: {result['error']}" for result in self.failed]
        return "\n\n".join(filter(None, [*parts, "\n".join(failed)]))

    def files(self) -> dict[str, str]:
        """Contents of `comparison.json`, `methods.csv`, `differences.csv`, `trials.csv` and `images.csv`."""
        trial = ["person", "method", "repetition", "steps", *COSTS, *MEASURES, "error"]
        image = ["person", "method", "repetition", *(self.done[0]["scores"][0] if self.done else ())]
        scores = [{**result, **score} for result in self.done for score in result["scores"]]
        return {
            "comparison.json": json.dumps(self.as_json(), ensure_ascii=False, indent=1),
            "methods.csv": _csv(self.rows()),
            "differences.csv": _csv(self.differences()),
            "trials.csv": _csv(self.results, trial),
            "images.csv": _csv(scores, image),
        }


def text_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows with the same keys, as aligned text."""
    lines = [list(rows[0]), *(list(row.values()) for row in rows)] if rows else []
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def shown(found: Estimate | None, signed: bool = False) -> str:
    """ ".631 ± .024" with its 95 % interval; "–" if unknown."""
    if found is None:
        return "–"
    mean = f"{found.mean:+.3f}" if signed else f"{found.mean:.3f}"
    return mean if found.half is None else f"{mean} ± {found.half:.3f}"


def shown_p(p: float) -> str:
    return "< .0001" if p < 1e-4 else f"{p:.4f}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    table = io.StringIO()
    writer = csv.DictWriter(table, columns or list(rows[0] if rows else ()), extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue()
