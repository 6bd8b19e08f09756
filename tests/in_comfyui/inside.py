"""Tests whose own bodies, asserts included, run in ComfyUI's process.

    @in_comfyui
    def test_what_apply_does(checkpoint): ...

pytest collects the test here; its worker (`worker.py`) imports the same module and runs the body there. Arguments are
JSON values: a path comes as a string. What is imported from ComfyUI stands under `if INSIDE:`.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable

INSIDE = "comfy.options" in sys.modules


def in_comfyui(body: Callable[..., None] | None = None, by: str = "run_inside") -> Callable:
    """Runs a test's body in ComfyUI's process, with the test's own fixtures and parameters as arguments.

    Args:
        by: fixture that runs it, given module, name and arguments.
    """
    if body is None:
        return functools.partial(in_comfyui, by=by)
    if INSIDE:
        return body

    @functools.wraps(body)
    def test(**arguments):
        arguments.pop(by)(body.__module__, body.__name__, arguments)

    own = inspect.signature(body)
    fixture = inspect.Parameter(by, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    test.__signature__ = own.replace(parameters=[fixture, *own.parameters.values()])
    return test
