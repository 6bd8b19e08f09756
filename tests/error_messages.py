"""Every error message of the pack, as its source has it, with … for what is filled in."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path


def messages(root: Path) -> Iterator[tuple[Path, int, str]]:
    """File, line, and "Expected …" of each error that is raised with three parts."""
    for path in sorted([*(root / "idea_core").rglob("*.py"), *(root / "nodes").rglob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                ours = (name.endswith("Error") and len(node.args) == 3) or name in ("file_error", "_file_error")
                text = _template(node.args[0]) if ours else "…"
                if text.strip("… "):
                    yield path.relative_to(root), node.lineno, f"Expected {text}"


def _template(part: ast.expr) -> str:
    """A string with … in place of what is computed."""
    if isinstance(part, ast.Constant):
        return str(part.value)
    if isinstance(part, ast.JoinedStr):
        return "".join(value.value if isinstance(value, ast.Constant) else "…" for value in part.values)
    if isinstance(part, ast.BinOp):
        return _template(part.left) + _template(part.right)
    return "…"
