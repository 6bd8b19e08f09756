"""Clocks, and tables that go to a file of results as well."""

from __future__ import annotations

import datetime
import json
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch


def now(device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


def flops_per_second(device: str, dtype: torch.dtype) -> float:
    """What a large matrix product reaches."""
    side = 8192 if device != "cpu" else 2048
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(5):
        start = now(device)
        a @ b
        best = min(best, now(device) - start)
    return 2 * side**3 / best


def write(file: Path, what: str, device: str, rows: Sequence[Mapping[str, Any]], **setting: Any) -> None:
    """Print rows as a table, and add them to the results."""
    name = torch.cuda.get_device_name() if device != "cpu" else f"{platform.processor() or platform.machine()} CPU"
    file.parent.mkdir(exist_ok=True)
    line = {"what": what, "date": datetime.date.today().isoformat(), "device": name, "torch": torch.__version__}
    with open(file, "a", encoding="utf-8") as results:
        results.write(json.dumps({**line, **setting, "rows": [_rounded(row) for row in rows]}) + "\n")
    heads = list(dict.fromkeys(key for row in rows for key in row))
    print(f"{what} on {name}; {setting}")
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    for row in rows:
        print("| " + " | ".join(str(_rounded(row).get(key, "")) for key in heads) + " |")


def markdown(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table under its title."""
    lines = [f"### {title}", "", "| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def rates_tried(
    title: str,
    chosen: Mapping[str, Mapping[str, Mapping[str, float]]],
    grids: Mapping[str, Mapping[str, Sequence[float]]],
    titles: Mapping[str, str],
) -> str:
    """Rates that were tried for each arm, and those that were chosen, by steps and arm."""
    rows = []
    for arm, grid in grids.items():
        tried = "; ".join(f"{key} {', '.join(f'{value:g}' for value in values)}" for key, values in grid.items())
        taken = [", ".join(f"{key} {value:g}" for key, value in arms.get(arm, {}).items()) for arms in chosen.values()]
        rows.append([titles[arm], tried, *taken])
    return markdown(title, ["", "tried", *(f"{steps} steps" for steps in chosen)], rows)


def _rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in row.items()}
