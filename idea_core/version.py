"""The pack's version. It stands in pyproject.toml alone, where ComfyUI's registry reads it."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path


def read_version() -> str:
    """From the pyproject.toml beside the package (a checkout, a custom node), else from the installed package."""
    pyproject = Path(__file__).parent.parent / "pyproject.toml"
    if pyproject.is_file():
        text = pyproject.read_text("utf-8")
        return re.search(r'^version = "(.+)"$', text, re.MULTILINE)[1]
    return metadata.version("id-ea")


__version__ = read_version()
