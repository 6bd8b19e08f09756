"""ComfyUI servers over tiny models, made of what the tests are made of. They take COMFYUI_PATH as the tests do."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

_TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path[:0] = [str(_TESTS), str(_TESTS / "in_comfyui")]

from base_directory import write_base  # noqa: E402
from comfyui_place import find_comfyui, find_python  # noqa: E402
from comfyui_server import PromptError, Server, outputs  # noqa: E402
from graphs import base_picture, generation, listed, training, workflow  # noqa: E402
from studio import build_studio  # noqa: E402

__all__ = [
    "CHECKPOINT",
    "Place",
    "PromptError",
    "Server",
    "base_picture",
    "build_studio",
    "generation",
    "listed",
    "outputs",
    "temporary_place",
    "training",
    "workflow",
]

CHECKPOINT = "tiny_sd15"


@dataclass(frozen=True)
class Place:
    """Where servers run: ComfyUI, its Python, a base directory with tiny models and the pack."""

    comfyui: Path
    python: Path
    base: Path

    @property
    def people(self) -> Path:
        return self.base / "output" / "idea"

    @contextmanager
    def server(self, *options: str, name: str = "server") -> Iterator[Server]:
        server = Server(self.comfyui, self.python, self.base, *options, name=name)
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def temporary_place() -> Iterator[Place]:
    comfyui = find_comfyui()
    if comfyui is None:
        raise click.ClickException("Expected a ComfyUI, got none. Set COMFYUI_PATH to its folder.")
    python = find_python(comfyui)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        write_base(base, comfyui, python)
        yield Place(comfyui, python, base)
