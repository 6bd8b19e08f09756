"""Users' text files."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import ConfigError


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
