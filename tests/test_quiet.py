"""Nothing leaves the machine, and nothing is written that was not asked for, whatever was imported first."""

import json
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from helpers import ROOT
from idea_command import QUICK, base, faces, train
from system_calls import needs_strace, trace

from idea_core.quiet import SWITCHES

IDEA = "import sys; sys.path.insert(0, sys.argv.pop(1)); from idea_core.headless.cli import idea; idea()"
SMALL = ["--steps", "1", "--count", "1", "--width", "16", "--height", "16"]


def command(code: str, *arguments) -> list[str]:
    return [sys.executable, "-c", code, ROOT, *map(str, arguments)]


@needs_strace
def test_commands_reach_no_host_and_write_what_was_asked_for_alone(studio, tmp_path):
    person = tmp_path / "alice.safetensors"
    train(studio, person)
    calls = {
        "encode": ["encode", studio / "photos" / "alice", "-o", tmp_path / "encode" / "a.safetensors", *faces(studio)],
        "generate": [
            "generate",
            *base(studio),
            "--identity",
            person,
            "--prompt",
            "a {}",
            *SMALL,
            "--save-dir",
            "drawn",
        ],
    }
    for name, arguments in calls.items():
        folder = tmp_path / name
        folder.mkdir()
        seen = trace(command(IDEA, *arguments), folder)
        assert seen.network == [] and seen.home == []
        allowed = (folder, Path(tempfile.gettempdir()))
        assert [path for path in seen.made if not any(path.is_relative_to(place) for place in allowed)] == []
        assert [path for path in seen.made if path.is_relative_to(folder)]  # it was looked at


LIBRARY = """
import sys, time
sys.path.insert(0, sys.argv[1])
for name in sys.argv[2].split(","):
    __import__(name)
time.sleep(float(sys.argv[3]))
"""
DATABASE = Path(".cache/Microsoft/DeveloperTools/.onnxruntime")
FILES = ("deviceid", "onnxruntime.db", "onnxruntime.db-wal", "onnxruntime.db-shm")
IN_TIME = 12  # seconds after which onnxruntime has sent what it noted at its start


@pytest.mark.slow  # the commands, which use all of it, are watched in the gate
@needs_strace
def test_the_library_reaches_no_host_and_writes_nothing(tmp_path):
    seen = trace(command(LIBRARY, "diffusers,idea_core,onnxruntime", IN_TIME), tmp_path)
    assert seen.network == [] and seen.home == [] and "imported first" not in seen.errors


@needs_strace
def test_it_is_said_where_onnxruntime_was_there_before(tmp_path):
    seen = trace(command(LIBRARY, "onnxruntime,idea_core", 0), tmp_path)
    assert {Path(path) for path in seen.home} <= {*DATABASE.parents, DATABASE, *(DATABASE / name for name in FILES)}
    assert "ID-EA: onnxruntime was imported first" in seen.errors
    (tmp_path / "told").mkdir()
    told = trace(command(LIBRARY, "onnxruntime,idea_core", 0), tmp_path / "told", ORT_DISABLE_TELEMETRY="1")
    assert told.home == [] and "imported first" not in told.errors


def test_comfyui_is_told_before_any_pack_is_loaded(monkeypatch):
    for name in SWITCHES:
        monkeypatch.setenv(name, "")
    runpy.run_path(str(ROOT / "prestartup_script.py"))
    assert {name: os.environ[name] for name in SWITCHES} == SWITCHES


NO_USER = ["unshare", "--user", "--map-user=54321", "--"]


def _can_be_nobody() -> bool:
    try:
        return not subprocess.run([*NO_USER, "true"], capture_output=True).returncode
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not _can_be_nobody(), reason="NO USER NAMESPACES: commands without a home folder were NOT TRIED")
def test_commands_work_without_a_user_and_a_home_folder(studio, tmp_path):
    photos, person = studio / "photos" / "alice", tmp_path / "alice.safetensors"
    calls = [
        ["encode", photos, "-o", "face.safetensors", *faces(studio)],
        ["train", *base(studio), *faces(studio), "--photos", photos, "--name", "alice", "-o", person, *QUICK],
        ["generate", *base(studio), "--identity", person, "--prompt", "a {}", *SMALL],
    ]
    for arguments in calls:
        done = nobody_runs(command(IDEA, *arguments), tmp_path)
        assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alice.safetensors", "face.safetensors", "images"]
    done = nobody_runs(command(IDEA, "encode", photos, "-o", "face.safetensors"), tmp_path)
    assert done.returncode == 1
    assert "Error: Expected a face model pack in the usual places, got none there." in done.stderr
    packs = tmp_path / "models" / "insightface" / "models"
    packs.mkdir(parents=True)
    (packs / "testpack").symlink_to(studio / "faces")
    found = nobody_runs(command(IDEA, "encode", photos, "-o", "face.safetensors"), tmp_path, COMFYUI_PATH=tmp_path)
    assert found.returncode == 0, found.stderr


@pytest.mark.slow
def test_a_ray_cluster_of_ones_own_leaves_the_home_folder_alone(studio, tmp_path):
    people, home = tmp_path / "people.jsonl", tmp_path / "home"
    home.mkdir()
    people.write_text(json.dumps({"name": "alice", "photos": str(studio / "photos" / "alice")}))
    batch = command(IDEA, "batch", people, *base(studio), *faces(studio), *QUICK, "--engine", "ray", "--save-dir")
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([*batch, "at_home"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and list(home.iterdir()) == [], done.stderr
    if _can_be_nobody():
        done = nobody_runs([*batch, "homeless"], tmp_path)
        assert done.returncode == 0, done.stderr


def nobody_runs(command: list[str], folder: Path, **more) -> subprocess.CompletedProcess:
    """As a user whom the system does not know, with next to no environment."""
    environment = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", **more}
    return subprocess.run([*NO_USER, *command], cwd=folder, env=environment, capture_output=True, text=True)
