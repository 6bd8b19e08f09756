"""A base directory with tiny models, a ComfyUI server over it, and a ComfyUI process that runs tests and probes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from base_directory import write_base
from comfyui_place import find_comfyui, find_python, without_face_packages
from comfyui_server import Server
from graphs import CHECKPOINTS, base_picture, listed, train

from idea_core.enhancers.model import EnhancerModel
from idea_core.enhancers.pretrained import PretrainedEnhancer
from idea_core.identity.base_ref import BaseModelRef

HERE = Path(__file__).parent
PROBE_LIMIT = 900  # seconds


@pytest.fixture(scope="session")
def comfyui() -> Path:
    return find_comfyui()


@pytest.fixture(scope="session")
def python(comfyui) -> Path:
    return find_python(comfyui)


@pytest.fixture(scope="session")
def base(comfyui, python, tmp_path_factory) -> Path:
    """Base directory: tiny checkpoints, tiny face models, photos, and the pack in custom_nodes."""
    said = without_face_packages(python)
    if said:
        pytest.exit(said, returncode=1)
    base = tmp_path_factory.mktemp("comfyui")
    write_base(base, comfyui, python)
    return base


@pytest.fixture(scope="session")
def server(comfyui, python, base) -> Iterator[Server]:
    with Server(comfyui, python, base) as server:
        yield server


@pytest.fixture(scope="session")
def untouched(server) -> dict[str, np.ndarray]:
    """Pictures of the base models, by checkpoint, before the server has trained or applied anybody."""
    assert not [name for name in ("tiny_sd", "clicked") if name in listed(server)]
    return {checkpoint: base_picture(server, checkpoint) for checkpoint in CHECKPOINTS}


@pytest.fixture(scope="session")
def examples_files(server, base, untouched) -> None:
    """What the examples name: two people, a LoRA, an ID-Enhancer."""
    for name in ("alice", "bob"):
        train(server, "tiny_sd15", name, preview_every=0)
    people, loras = base / "output" / "idea", base / "models" / "loras"
    loras.mkdir(exist_ok=True)
    shutil.copy(people / "bob.safetensors", loras / "your_style.safetensors")
    weights = EnhancerModel(*[{"clip_l": torch.randn(2, 768) * 0.1}] * 3).state_dict()
    enhancer = PretrainedEnhancer(BaseModelRef("sd1", "eps", None, heads=8, beta=0.4), weights)
    enhancer.save(people / "enhancers" / "my_checkpoint.safetensors")


@pytest.fixture(scope="session")
def tiny_family(base, comfyui, python) -> Callable[[str], str]:
    """Puts a transformer family's tiny models into ComfyUI's folders, and gives its name."""

    def written(family: str) -> str:
        if not (base / "models" / "diffusion_models" / f"tiny_{family}.ckpt").exists():
            command = [python, HERE / "tiny_transformers.py", base / "models", family]
            subprocess.run(command, cwd=comfyui, check=True)
        return family

    return written


@pytest.fixture
def family(request, tiny_family) -> str:
    """A family's tiny models are in ComfyUI's folders."""
    return tiny_family(request.param)


@pytest.fixture(scope="session")
def start_probe(comfyui, python, base) -> Callable[..., AbstractContextManager[Callable]]:
    """Starts a ComfyUI process with more options; where it is watched, nothing may reach beyond it."""

    @contextmanager
    def start(*options: str, watched: bool = True) -> Iterator[Callable]:
        path = base / f"{'-'.join(['worker' if watched else 'unwatched', *options])}.log"
        with open(path, "w") as log:
            command = [python, HERE / "worker.py", base, *options]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log}
            environment = {**os.environ, "IDEA_TEST_PYTEST": str(Path(pytest.__file__).parent.parent)}
            worker = subprocess.Popen(command, cwd=comfyui, text=True, env=environment, **pipes)
            try:
                call = partial(_call, worker, path)
                yield call
                assert not watched or call("reached") == []  # neither the network nor another program
            finally:
                worker.stdin.close()
                worker.wait(30)
                worker.stdout.close()

    return start


@pytest.fixture(scope="session")
def probe(start_probe) -> Iterator[Callable]:
    """Runs a function of `probes_*.py` inside real ComfyUI and returns what it returned."""
    with start_probe() as call:
        yield call


@pytest.fixture(scope="session")
def run_inside(probe) -> Callable[[str, str, dict], None]:
    """Runs the body of a test marked `in_comfyui`, by its module and name."""
    return partial(_run, probe)


@pytest.fixture
def run_unwatched(start_probe) -> Iterator[Callable[[str, str, dict], None]]:
    """The same in a process of its own, which may start other programs."""
    with start_probe(watched=False) as call:
        yield partial(_run, call)


def _run(call: Callable, module: str, test: str, arguments: dict) -> None:
    call(None, module=module, test=test, arguments=arguments)


def _call(worker: subprocess.Popen, log: Path, name: str | None, /, **arguments):
    """Result of a probe by its name, or of the test that the arguments say."""
    call = {"probe": name, "arguments": arguments} if name else arguments
    worker.stdin.write(json.dumps(call, default=str) + "\n")
    worker.stdin.flush()
    patience = threading.Timer(PROBE_LIMIT, worker.kill)
    patience.start()
    line = worker.stdout.readline()
    patience.cancel()
    if not line:
        pytest.fail(f"ComfyUI's process ended: {log.read_text()[-3000:]}")
    answer = json.loads(line)
    if "skipped" in answer:
        pytest.skip(answer["skipped"])
    if "error" in answer:
        pytest.fail(answer["error"], pytrace=False)
    return answer["result"]
