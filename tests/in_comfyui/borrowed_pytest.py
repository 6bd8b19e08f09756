"""pytest for ComfyUI's process, whose Python need not have it: the tests' own, which is pure Python."""

from __future__ import annotations

import ast
import sys
import traceback
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

PACKAGES = {"_pytest", "pytest", "py", "pluggy", "iniconfig", "packaging", "pygments", "exceptiongroup", "tomli"}


class Borrowed:
    """Finds pytest and what it needs in another Python's folder, after all that ComfyUI's Python has."""

    def __init__(self, place: str):
        self.place = place

    def find_spec(self, name: str, path=None, target=None) -> ModuleSpec | None:
        if name.partition(".")[0] not in PACKAGES:
            return None
        return PathFinder.find_spec(name, path or [self.place], target)


def load_tests(path: Path) -> ModuleType:
    """A test module whose failing asserts say their values."""
    from _pytest.assertion.rewrite import rewrite_asserts

    module = sys.modules[path.stem] = ModuleType(path.stem)
    module.__file__ = str(path)
    source = path.read_bytes()
    tree = ast.parse(source)
    rewrite_asserts(tree, source, str(path))
    try:
        exec(compile(tree, str(path), "exec", dont_inherit=True), vars(module))
    except BaseException:
        del sys.modules[path.stem]  # the next test in it says the same
        raise
    return module


def answer_of(body, arguments: dict) -> dict:
    """What a test came to, as JSON: {"result": None}, {"skipped": reason} or {"error": traceback}."""
    import pytest

    try:
        body(**arguments)
    except pytest.skip.Exception as skipped:
        return {"skipped": str(skipped)}
    except BaseException:  # ComfyUI cancels with one that is no Exception
        return {"error": traceback.format_exc()}
    return {"result": None}
