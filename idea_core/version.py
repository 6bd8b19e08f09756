"""The pack's version. It stands in pyproject.toml alone, where ComfyUI's registry reads it."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path


def read_version() -> str:
    """From the pyproject.toml beside the package (a checkout, a custom node), else from the installed package."""
    pyproject = Path(__file__).parent.parent / "pyproject.toml"
    if not pyproject.is_file():
        return metadata.version("id-ea")
    (version,) = re.findall(r'^version = "(.+)"$', pyproject.read_text("utf-8"), re.MULTILINE)
    return version


__version__ = read_version()
