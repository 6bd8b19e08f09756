"""The pack's version, read from pyproject.toml, where ComfyUI's registry reads it."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

_pyproject = Path(__file__).parent.parent / "pyproject.toml"
if _pyproject.is_file():  # a checkout or a custom node
    (__version__,) = re.findall(r'^version = "(.+)"$', _pyproject.read_text("utf-8"), re.MULTILINE)
else:
    __version__ = metadata.version("id-ea")
