"""Without ComfyUI, the tests in it are skipped, with one loud line. Several processes share the processor's cores."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER_COUNT" in os.environ:  # before torch counts cores, here and in what the tests start
    threads = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, threads)))

from comfyui_place import find_comfyui, find_python, version_of, without_face_packages
from studio import build_studio

COMFYUI_TESTS = "in_comfyui"
ON_THE_SERVER = {f"test_{what}" for what in ("face_nodes", "faults", "front_end", "texts", "workflows")}


@pytest.fixture(scope="session")
def studio(tmp_path_factory) -> Path:
    """A tiny base model, face models and photos on disk."""
    return build_studio(tmp_path_factory.mktemp("studio"))


def pytest_configure(config: pytest.Config) -> None:
    """Say what is wrong with the set-up before several processes start, in which it would get lost."""
    try:
        comfyui = find_comfyui()
    except SystemExit as error:
        raise pytest.UsageError(error) from None
    if comfyui and config.getoption("numprocesses", None):
        said = without_face_packages(find_python(comfyui))
        if said:
            raise pytest.UsageError(said)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if find_comfyui() is None:
        for item in items:
            if COMFYUI_TESTS in item.path.parts:
                item.add_marker(pytest.mark.skip(reason="no ComfyUI"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """What a process takes as a whole: the tests on ComfyUI's server, the others in ComfyUI, any other file."""
    from xdist.scheduler import LoadScopeScheduling

    class ByWhatTheyShare(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = Path(nodeid.split("::")[0])
            if COMFYUI_TESTS not in file.parts:
                return file.stem
            return "on the server" if file.stem in ON_THE_SERVER else "in a process"

    return ByWhatTheyShare(config, log)


def pytest_terminal_summary(terminalreporter) -> None:
    if comfyui := find_comfyui():
        done = [report for kind in ("passed", "failed", "error") for report in terminalreporter.getreports(kind)]
        ran = sum(COMFYUI_TESTS in report.nodeid for report in done)
        terminalreporter.write_line(f">>> COMFYUI {version_of(comfyui)}: {ran} tests ran in it.", bold=True)
    else:
        terminalreporter.write_line(
            "!!! NO COMFYUI FOUND: every test in real ComfyUI was SKIPPED. "
            "Set COMFYUI_PATH (and COMFYUI_PYTHON) to run them.",
            red=True,
            bold=True,
        )
