"""Texts that users write, and others send them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ..errors import ConfigError


def read_text(path: str | os.PathLike) -> str:
    """A file in UTF-8, with or without the mark that Windows puts first; lines end in "\\n".

    Raises:
        ConfigError: another encoding.
        OSError: the file cannot be read.
    """
    try:
        return Path(path).read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"text in UTF-8 in {path}", f"{error}", "Save it as UTF-8.") from None


def parse_json(text: str) -> Any:
    """JSON values. Whatever is wrong with the text is a ValueError, nesting beyond Python's limit too."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError(str(error)) from None
