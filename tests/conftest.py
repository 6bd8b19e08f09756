"""Without ComfyUI, the tests in it are skipped, with one loud line.

Two processes may share the tests (`-n 2 --dist loadgroup`): all that need ComfyUI in one, the others by file.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from comfyui_place import find_comfyui
from studio import build_studio

COMFYUI_TESTS = "in_comfyui"


@pytest.fixture(scope="session")
def studio(tmp_path_factory) -> Path:
    """A tiny base model, face models and photos on disk."""
    return build_studio(tmp_path_factory.mktemp("studio"))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "xdist_group(name): tests that one process runs")
    if hasattr(config, "workerinput"):  # one of several processes, each with a share of the processor
        os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that it starts, too
        torch.set_num_threads(1)


@pytest.hookimpl(tryfirst=True)  # before the names of groups are read
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = find_comfyui() is None
    for item in items:
        in_comfyui = COMFYUI_TESTS in item.path.parts
        item.add_marker(pytest.mark.xdist_group(COMFYUI_TESTS if in_comfyui else item.path.stem))
        if in_comfyui and missing:
            item.add_marker(pytest.mark.skip(reason="no ComfyUI"))


def pytest_terminal_summary(terminalreporter) -> None:
    if find_comfyui() is None:
        terminalreporter.write_line(
            "!!! NO COMFYUI FOUND: every test in real ComfyUI was SKIPPED. "
            "Set COMFYUI_PATH (and COMFYUI_PYTHON) to run them.",
            red=True,
            bold=True,
        )
