"""A training that is killed again and again, and goes on each time.

    python -m benchmarks.kills [--kills 50] [--seed 0]

`idea train` on the tests' tiny model, saving its state after each step, gets SIGKILL at random moments of its run and
is started again, until it has come to its end. The person has to be the one of an unbroken training, bit by bit, and no
file may ever be a part of one. Prints one JSON object; fails if any of that is not so.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests"))

from studio import build_studio  # noqa: E402

from idea_core import Identity  # noqa: E402
from idea_core.errors import IdeaError  # noqa: E402

STEPS = 12


def command(studio: Path, output: Path) -> list[str]:
    options = {"model": studio / "model", "photos": studio / "photos" / "alice", "face-models": studio / "faces"}
    options |= {"provider": "cpu", "device": "cpu", "name": "alice", "output": output, "steps": STEPS}
    options |= {"batch-size": 2, "resolution": 32, "phrase": "ab", "save-every": 1}
    program = [sys.executable, "-c", "from idea_core.cli import idea; idea()", "train"]
    return program + [str(part) for name, value in options.items() for part in (f"--{name}", value)]


def whole(folder: Path) -> bool:
    """Whether each file in a folder that has an identity's name is one."""
    for path in folder.glob("*.safetensors"):
        try:
            Identity.load(path)
        except IdeaError:
            return False
    return True


@click.command()
@click.option("--kills", default=50)
@click.option("--seed", default=0)
def main(kills: int, seed: int) -> None:
    chance = random.Random(seed)
    done, trainings, broken, different, leftovers, anew = 0, 0, 0, 0, 0, 0
    went_on: list[int] = []  # after these steps
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as place:
        studio = build_studio(Path(place) / "studio")
        start = time.monotonic()
        unbroken = Path(place) / "unbroken" / "alice.safetensors"
        subprocess.run(command(studio, unbroken), env=environment, check=True, capture_output=True)
        seconds, expected = time.monotonic() - start, Identity.load(unbroken).digest()
        while done < kills:
            folder = Path(place) / f"training-{trainings}"
            output, log, trainings = folder / "alice.safetensors", Path(place) / f"{trainings}.log", trainings + 1
            while True:
                with open(log, "ab") as said:
                    process = subprocess.Popen(command(studio, output), env=environment, stdout=said, stderr=said)
                try:
                    process.wait(chance.uniform(0.3, 1.0) * seconds if done < kills else None)
                    break
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                    done += 1
                    broken += not whole(folder)
            different += Identity.load(output).digest() != expected
            leftovers += len([path for path in folder.iterdir() if path != output])
            went_on += [int(step) for step in re.findall(r"going on after step (\d+)", log.read_text())]
            anew += len(re.findall("training starts anew", log.read_text()))
    report = {"kills": done, "trainings": trainings, "seconds_of_one": round(seconds, 1), "broken_files": broken}
    report |= {"other_results": different, "files_left": leftovers}
    report |= {"went_on_after_steps": sorted(went_on), "started_anew_beside_a_state": anew}
    print(json.dumps(report))
    sys.exit(bool(broken or different or anew or not went_on))


if __name__ == "__main__":
    main()
