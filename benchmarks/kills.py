"""A training that is killed again and again, and goes on each time.

    python -m benchmarks.kills [--kills 50] [--seed 0]
    python -m benchmarks.kills --server      # a ComfyUI server that trains; COMFYUI_PATH, as for the tests

A training on the tests' tiny model, saving its state after each step, gets SIGKILL at random moments of its run and is
started again, until it has come to its end. The person has to be the one of an unbroken training, bit by bit, and no
.safetensors file may ever be a part of one. Prints one JSON object; fails if any of that is not so.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import click

from idea_core import Identity
from idea_core.errors import IdeaError

from .real_comfyui import CHECKPOINT, Place, Server, build_studio, outputs, temporary_place, training

STEPS = 12


class Way(Protocol):
    """How a training of always the same inputs is run.

    Attributes:
        folder: all that it writes.
        result: where it writes the person.
    """

    folder: Path
    result: Path

    def run(self, limit: float | None) -> float | None:
        """Train, going on where it stands; SIGKILL after so many seconds. Seconds to the end; None if it was killed."""

    def log(self) -> str:
        """What was said since `forget`."""

    def forget(self) -> None:
        """Make the next run the first one."""


@dataclass
class ByCommand:
    """`idea train`."""

    place: Path
    said: Path = field(init=False)

    def __post_init__(self):
        self.studio = build_studio(self.place / "studio")
        self.folder, self.said = self.place / "result", self.place / "log"
        self.result = self.folder / "alice.safetensors"

    def run(self, limit: float | None) -> float | None:
        studio = self.studio
        options = {"model": studio / "model", "photos": studio / "photos" / "alice", "face-models": studio / "faces"}
        options |= {"provider": "cpu", "device": "cpu", "name": "alice", "output": self.result, "steps": STEPS}
        options |= {"batch-size": 2, "resolution": 32, "phrase": "ab", "save-every": 1}
        command = [sys.executable, "-c", "from idea_core.headless.cli import idea; idea()", "train"]
        command += [str(part) for name, value in options.items() for part in (f"--{name}", value)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        start = time.monotonic()
        with open(self.said, "ab") as said:
            process = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
        try:
            if process.wait(limit):
                raise RuntimeError(self.log()[-3000:])
            return time.monotonic() - start
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return None

    def log(self) -> str:
        return self.said.read_text()

    def forget(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.said.unlink(missing_ok=True)


@dataclass
class InServer:
    """ID-Enhancer Train and Save ID-EA Embedding in a ComfyUI server; the seconds count from the prompt on."""

    place: Place
    said: str = ""

    def __post_init__(self):
        self.folder, self.result = self.place.people, self.place.people / "alice.safetensors"

    def run(self, limit: float | None) -> float | None:
        with self.place.server() as server:
            try:
                return self._queue(server, limit)
            finally:
                self.said += server.log.read_text(errors="replace")

    def _queue(self, server: Server, limit: float | None) -> float | None:
        graph = training(CHECKPOINT, "alice", preview_every=0)
        (train,) = (node for node in graph.values() if node["class_type"] == "IDEA_EnhancerTrain")
        settings = server.defaults("IDEA_TrainingSettings") | {"steps": STEPS, "batch_size": 2, "save_every": 1}
        graph["settings"] = {"class_type": "IDEA_TrainingSettings", "inputs": settings}
        train["inputs"] |= {"settings": ["settings", 0], "steps": 0}  # the settings' own
        start, prompt = time.monotonic(), server.queue(graph)
        try:
            outputs(server.wait(prompt, limit))
            return time.monotonic() - start
        except TimeoutError:
            server.kill()
            return None

    def log(self) -> str:
        return self.said

    def forget(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.said = ""


@contextmanager
def command_way() -> Iterator[Way]:
    with tempfile.TemporaryDirectory() as place:
        yield ByCommand(Path(place))


@contextmanager
def server_way() -> Iterator[Way]:
    with temporary_place() as place:
        yield InServer(place)


def whole(folder: Path) -> bool:
    """Whether each file in a folder that has an identity's name is one."""
    for path in folder.rglob("*.safetensors"):
        try:
            Identity.load(path)
        except IdeaError:
            return False
    return True


@click.command()
@click.option("--kills", default=50)
@click.option("--seed", default=0)
@click.option("--server", is_flag=True, help="A ComfyUI server in place of the command.")
def main(kills: int, seed: int, server: bool) -> None:
    chance = random.Random(seed)
    done, trainings, broken, different, leftovers, anew = 0, 0, 0, 0, 0, 0
    went_on: list[int] = []  # after these steps
    with server_way() if server else command_way() as way:
        way.run(None)  # what is read for the first time
        way.forget()
        seconds, expected = way.run(None), Identity.load(way.result).digest()
        kept = _files(way.folder)
        while done < kills:
            way.forget()
            trainings += 1
            while way.run(chance.uniform(0.2, 1.0) * seconds if done < kills else None) is None:
                done += 1
                broken += not whole(way.folder)
            different += Identity.load(way.result).digest() != expected
            leftovers += len(_files(way.folder) - kept)
            went_on += [int(step) for step in re.findall(r"resuming after step (\d+)", way.log())]
            anew += len(re.findall("training starts again", way.log()))
            print(f"{done} kills, {trainings} trainings", file=sys.stderr)
    report = {"kills": done, "trainings": trainings, "seconds_of_one": round(seconds, 1), "broken_files": broken}
    report |= {"other_results": different, "files_left": leftovers}
    report |= {"went_on_after_steps": sorted(went_on), "started_anew_beside_a_state": anew}
    print(json.dumps(report))
    sys.exit(bool(broken or different or anew or not went_on))


def _files(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}


if __name__ == "__main__":
    main()
