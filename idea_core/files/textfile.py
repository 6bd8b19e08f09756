"""Text files and JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ..errors import ConfigError


def read_text(path: str | os.PathLike) -> str:
    """A file in UTF-8, with or without the mark that Windows puts first; lines end in "\\n".

    Raises ConfigError for another encoding, and OSError.
    """
    try:
        return Path(path).read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"text in UTF-8 in {path}", f"{error}", "Save it as UTF-8.") from None


def parse_json(text: str) -> Any:
    """JSON values; ValueError for anything else, also for nesting beyond Python's limit."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError(str(error)) from None


def shipped_lines(module: str, name: str) -> tuple[str, ...]:
    """The lines of a text file in the `data` folder beside a module's file."""
    return tuple((Path(module).parent / "data" / name).read_text("utf-8").split("\n")[:-1])
