"""Write the tables of settings in docs/training.md from the settings:  python tools/settings_tables.py"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from idea_core.settings import settings_of, shown
from idea_core.training.config import PRESETS, TrainConfig

PAGE = Path(__file__).resolve().parents[1] / "docs" / "training.md"


def render(page: str) -> str:
    """The page with new tables, each between `<!-- name -->` and `<!-- end of name -->`."""
    for name, table in {"presets": _presets(), "settings": _settings()}.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        page = re.sub(f"(?s){begin}.*?{end}", lambda _, text=f"{begin}{table}\n{end}": text, page)
    return page


def _presets() -> str:
    """Table of the settings that differ between presets."""
    settings = {name: [getattr(preset, name) for preset in PRESETS.values()] for name in settings_of(TrainConfig)}
    rows = [[f"`{name}`", *map(_cell, values)] for name, values in settings.items() if len(set(values)) > 1]
    return _table([["", *(f"`{name}`" for name in PRESETS)], *rows])


def _settings() -> str:
    rows = [[f"`{name}`", _cell(one.default), one.bounds(), one.help] for name, one in settings_of(TrainConfig).items()]
    return _table([["setting", "default", "values", "what it is"], *rows])


def _cell(value: object) -> str:
    return shown(value) or "unset"


def _table(rows: list[list[str]]) -> str:
    header, *others = rows
    return "\n".join(map(_line, [header, ["---"] * len(header), *others]))


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |".replace("|  |", "| |")


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text("utf-8")), "utf-8")
