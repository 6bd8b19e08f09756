"""Without ComfyUI, the tests in it are skipped, with one loud line."""

from __future__ import annotations

from pathlib import Path

import pytest
from comfyui_place import find_comfyui
from studio import build_studio

COMFYUI_TESTS = "in_comfyui"


@pytest.fixture(scope="session")
def studio(tmp_path_factory) -> Path:
    """A tiny base model, face models and photos on disk."""
    return build_studio(tmp_path_factory.mktemp("studio"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if find_comfyui() is None:
        for item in items:
            if COMFYUI_TESTS in item.path.parts:
                item.add_marker(pytest.mark.skip(reason="no ComfyUI"))


def pytest_terminal_summary(terminalreporter) -> None:
    if find_comfyui() is None:
        terminalreporter.write_line(
            "!!! NO COMFYUI FOUND: every test in real ComfyUI was SKIPPED. "
            "Set COMFYUI_PATH (and COMFYUI_PYTHON) to run them.",
            red=True,
            bold=True,
        )
