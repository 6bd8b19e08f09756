"""A base directory with tiny models, a ComfyUI server over it, and a ComfyUI process that runs probes."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import face_models
import numpy as np
import pytest
import torch
from comfyui_place import PACK, find_comfyui, find_python
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import save_file
from server import Server

HERE = Path(__file__).parent
PACK_NAME = "testpack"
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
    if subprocess.run([python, "-c", "import insightface, onnxruntime"], capture_output=True).returncode:
        pytest.exit(f"ComfyUI's Python, {python}, lacks insightface or onnxruntime: install them there.", returncode=1)
    base = tmp_path_factory.mktemp("comfyui")
    (base / "custom_nodes").mkdir()
    (base / "custom_nodes" / "id-ea").symlink_to(PACK)
    subprocess.run([python, HERE / "tiny_checkpoints.py", base / "models" / "checkpoints"], cwd=comfyui, check=True)
    write_vae(base / "models" / "vae" / "random_kl.safetensors")
    face_models.write_face_pack(base / "models" / "insightface" / "models" / PACK_NAME)
    (base / "input").mkdir()
    for number, photo in enumerate(photos(), start=1):
        Image.fromarray(photo).save(base / "input" / f"photo_{number}.png")
    Image.fromarray(face_models.photo(faces=[])).save(base / "input" / "nobody.png")
    Image.fromarray(somebody_else()).save(base / "input" / "other.png")
    return base


def write_vae(path: Path) -> None:
    """Stable Diffusion's VAE at full size, since ComfyUI fixes it, with random weights."""
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    vae = AutoencoderKL(block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4, **blocks)
    path.parent.mkdir(parents=True)
    save_file(vae.state_dict(), path)


def photos() -> list:
    """Two photos of one drawn person."""
    return [face_models.photo(faces=[(130, 110, 90)]), face_models.photo(faces=[(190, 130, 120)], seed=1)]


def somebody_else() -> np.ndarray:
    return face_models.photo(faces=[(160, 120, 100, 0.0, (120, 90, 70), (200, 170, 90))], seed=2)


@pytest.fixture(scope="session")
def server(comfyui, python, base) -> Iterator[Server]:
    server = Server(comfyui, python, base)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def untouched(server) -> dict[str, np.ndarray]:
    """Pictures of the base models, by checkpoint, before the server has trained or applied anybody."""
    from test_workflows import CHECKPOINTS, base_picture, listed

    assert not [name for name in ("tiny_sd", "clicked") if name in listed(server)]
    return {checkpoint: base_picture(server, checkpoint) for checkpoint in CHECKPOINTS}


@pytest.fixture(scope="session")
def start_probe(comfyui, python, base) -> Callable[..., AbstractContextManager[Callable]]:
    """Starts a ComfyUI process with more options."""

    @contextmanager
    def start(*options: str) -> Iterator[Callable]:
        path = base / f"{'-'.join(['worker', *options])}.log"
        with open(path, "w") as log:
            command = [python, HERE / "worker.py", base, *options]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log}
            worker = subprocess.Popen(command, cwd=comfyui, text=True, **pipes)
            try:
                call = partial(_call, worker, path)
                yield call
                assert call("reached") == []  # no node asks the network for anything, or starts another program
            finally:
                worker.stdin.close()
                worker.wait(30)

    return start


@pytest.fixture(scope="session")
def probe(start_probe) -> Iterator[Callable]:
    """Runs a function of `probes_*.py` inside real ComfyUI and returns what it returned."""
    with start_probe() as call:
        yield call


def _call(worker: subprocess.Popen, log: Path, name: str, /, **arguments):
    worker.stdin.write(json.dumps({"probe": name, "arguments": arguments}, default=str) + "\n")
    worker.stdin.flush()
    patience = threading.Timer(PROBE_LIMIT, worker.kill)
    patience.start()
    line = worker.stdout.readline()
    patience.cancel()
    if not line:
        pytest.fail(f"ComfyUI's process ended: {log.read_text()[-3000:]}")
    answer = json.loads(line)
    if "error" in answer:
        pytest.fail(answer["error"], pytrace=False)
    return answer["result"]
