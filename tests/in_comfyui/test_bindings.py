"""What the pack uses of ComfyUI, by its source, against the ComfyUI that runs."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from inside import INSIDE, in_comfyui

if INSIDE:
    from probes import pack

THEIRS = ("comfy", "comfy_api", "comfy_execution", "comfy_extras", "folder_paths")
UNKNOWN = object()


def _uses(path: Path) -> Iterator[tuple[str, str, Any, ast.Call | None]]:
    """Place, name, value and call, if it is one, of each use of something imported from ComfyUI."""
    tree = ast.parse(path.read_text("utf-8"))
    names = dict(_imported(tree))
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Name, ast.Attribute)) and id(node) not in inner:
            chain = _chain(node)
            if chain and chain[0] in names:
                value = names[chain[0]]
                for part in chain[1:]:
                    value = getattr(value, part, UNKNOWN)
                yield f"{path.name}:{node.lineno}", ".".join(chain), value, calls.get(id(node))


def _imported(tree: ast.Module) -> Iterator[tuple[str, Any]]:
    """Local name → what a module imports of ComfyUI's under it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in THEIRS:
                    module = importlib.import_module(alias.name)
                    root = alias.name.split(".")[0]
                    yield (alias.asname, module) if alias.asname else (root, importlib.import_module(root))
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module.split(".")[0] in THEIRS:
            module = importlib.import_module(node.module)
            for alias in node.names:
                yield alias.asname or alias.name, getattr(module, alias.name, UNKNOWN)


def _chain(node: ast.expr) -> list[str]:
    """["comfy", "utils", "get_attr"] of an expression of names alone, else []."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return [node.id, *reversed(parts)] if isinstance(node, ast.Name) else []


def _fault(called: Any, call: ast.Call) -> str:
    """Why a call cannot be bound to the parameters of what it calls; "" where it can, or where nobody can tell."""
    if any(isinstance(part, ast.Starred) for part in call.args) or any(word.arg is None for word in call.keywords):
        return ""
    try:
        parameters = inspect.signature(called)
    except (TypeError, ValueError):
        return ""
    try:
        parameters.bind(*call.args, **{word.arg: word.value for word in call.keywords})
    except TypeError as fault:
        return f": {fault}"
    return ""


@in_comfyui
def test_all_that_the_pack_uses_of_comfyui_is_there_and_may_be_called_so():
    root = Path(pack("nodes.extension").__file__).parents[1]
    found = [use for path in sorted((root / "nodes").rglob("*.py")) for use in _uses(path)]
    assert [f"{place}: {name}" for place, name, value, _ in found if value is UNKNOWN] == []
    unbindable = [
        f"{place}: {name}{fault}"
        for place, name, value, call in found
        if value is not UNKNOWN and call is not None and (fault := _fault(value, call))
    ]
    assert unbindable == []
    assert len({name for _, name, _, _ in found}) > 60
    assert sum(call is not None for _, _, _, call in found) > 100
