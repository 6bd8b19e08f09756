"""Many people on a real Ray cluster of two nodes on this machine."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from idea_command import QUICK, base, faces, run

from idea_core import Identity
from idea_core.errors import ConfigError
from idea_core.headless.jobs.ray_engine import _require_resources
from miniature.people import named_people
from miniature.world import BASE, FACES

RAY = Path(sys.executable).with_name("ray")
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_IMPORT_WARNING": "1", "RAY_enable_metrics_collection": "0"}
TASK = b"ray::_train"
PATIENCE = 120  # seconds


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Address of a cluster with two nodes of one CPU."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    temporary = Path("/tmp") / f"ray-{os.getpid()}"  # short: sockets lie in it
    common = ["--num-cpus", "1", "--node-ip-address", "127.0.0.1", "--object-store-memory", "80000000"]
    head = ["--head", "--port", address.split(":")[1], "--include-dashboard", "false", "--temp-dir", temporary]
    environment = {**os.environ, **QUIET}
    try:
        for node in (head, ["--address", address]):
            subprocess.run([RAY, "start", *node, *common], env=environment, check=True, capture_output=True)
        yield address
    finally:
        subprocess.run([RAY, "stop", "--force"], env=environment, capture_output=True)


def working() -> list[int]:
    """Processes that are training now."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "cmdline").read_bytes().startswith(TASK):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_a_killed_worker_costs_nobody(studio, tmp_path, cluster):
    names = ["alice", "bob", "alice2", "eve"]
    people = tmp_path / "people.jsonl"
    entries = [{"name": name, "photos": str(studio / "photos" / name.rstrip("2"))} for name in names]
    people.write_text("\n".join(map(json.dumps, entries)))
    settings = ["batch", people, *base(studio), *faces(studio), *QUICK, "--steps", "20", "--threads", "1", "--json"]
    on_ray = [*settings, "--engine", "ray", "--address", cluster, "--save-dir", tmp_path / "ray"]
    script = [sys.executable, "-c", "from idea_core.headless.cli import idea; idea()", *map(str, on_ray)]
    driver = subprocess.Popen(script, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | QUIET)
    end = time.monotonic() + PATIENCE
    while not (victims := working()):
        assert driver.poll() is None and time.monotonic() < end, driver.communicate()[1]
        time.sleep(0.02)
    os.kill(victims[0], signal.SIGKILL)
    output, errors = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 1, errors
    outcomes = json.loads(output)["people"]
    threads = torch.get_num_threads()
    try:
        local = json.loads(run(*settings, "--save-dir", tmp_path / "local", code=1).stdout)["people"]
    finally:
        torch.set_num_threads(threads)
    assert [outcome["status"] for outcome in outcomes] == ["trained"] * 3 + ["failed"]
    assert "photos at" in outcomes[3]["message"]
    for outcome, reference in zip(outcomes[:3], local):
        assert outcome["digest"] == reference["digest"] == Identity.load(outcome["output"]).digest()
        told, expected = (Identity.load(one["output"]).training for one in (outcome, reference))
        assert {**told, "report": {}} == {**expected, "report": {}}  # which holds times


def test_pictures_of_people_are_drawn_by_all_machines_as_by_one(tmp_path, cluster):
    names = tmp_path / "names.txt"
    names.write_text("\n".join(named_people().names()[:6]), "utf-8")
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a photo of {}\n", "utf-8")
    draw = ["enhancer", "train", "--model", BASE, "--face-models", FACES, "--names", names, "--num-synthetic", "2"]
    draw += [
        "--prompts",
        prompts,
        "--images-per-person",
        "3",
        "--sampling-steps",
        "2",
        "--sampling-batch-size",
        "6",
        "--pictures-only",
    ]
    draw += ["-o", tmp_path / "enhancer.safetensors"]
    folders = {"ray": ["--engine", "ray", "--address", cluster], "local": []}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for folder, engine in folders.items():
            run(*draw, *engine, "--work", tmp_path / folder)
    finally:
        torch.set_num_threads(threads)
    people = [sorted((tmp_path / folder / "people").glob("*.safetensors")) for folder in folders]
    assert len(people[0]) == len(people[1]) == 8
    assert all(one.read_bytes() == other.read_bytes() for one, other in zip(*people))
    both = run(*draw, *folders["ray"], "--shard", "0/2", "--work", tmp_path / "ray", code=2).stderr
    assert "leave --shard out" in both


@pytest.mark.slow
def test_a_comparison_on_a_cluster(studio, tmp_path, cluster):
    (tmp_path / "names.txt").write_text("ab")
    (tmp_path / "prompts.txt").write_text("a photo of {}")
    texts = ["--names", tmp_path / "names.txt", "--prompts", tmp_path / "prompts.txt", "--methods", "ti,id-ea"]
    quick = ["--steps", "1", "--resolution", "16", "--sampling-steps", "1", "--count", "1", "--json"]
    line = ["compare", *base(studio), *faces(studio), "--people", studio / "photos", *texts, *quick]
    folders = {"ray": ["--engine", "ray", "--address", cluster], "local": []}
    threads = torch.get_num_threads()
    try:
        said = [run(*line, *engine, "-o", tmp_path / folder) for folder, engine in folders.items()]
    finally:
        torch.set_num_threads(threads)
    costs = ("seconds", "bytes")
    trials = [[{k: v for k, v in one.items() if k not in costs} for one in part["trials"]] for part in said]
    assert len(trials[0]) == 6 and not [one for one in trials[0] if "error" in one]
    assert sorted(trials[0], key=str) == sorted(trials[1], key=str)


def test_what_no_machine_can_hold_is_said():
    machines = [{"CPU": 4.0}, {"CPU": 2.0, "GPU": 1.0}]
    assert _require_resources(machines, 2, None) == 1 and _require_resources(machines[:1], 2, None) == 0
    for threads, gpus in [(8, 0), (4, None), (1, 2)]:
        with pytest.raises(ConfigError, match="got 4 CPUs and 0 GPUs, 2 CPUs and 1 GPUs. Lower --threads or --gpus."):
            _require_resources(machines, threads, gpus)


def test_no_cluster_is_said(studio, tmp_path):
    people = tmp_path / "people.jsonl"
    people.write_text(json.dumps({"name": "alice", "photos": str(studio / "photos" / "alice")}))
    settings = [*base(studio), *QUICK, "--engine", "ray", "--address", "127.0.0.1:9"]
    assert "a Ray cluster at 127.0.0.1:9, got no answer" in run("batch", people, *settings, code=1).stderr
