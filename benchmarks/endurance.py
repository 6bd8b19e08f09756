"""Many runs in one ComfyUI server: memory, and whether the base model stays as it was.

    python -m benchmarks.endurance [--pictures 200] [--trainings 50]      # COMFYUI_PATH, as for the tests

Draws pictures with a person, then trains people, on a tiny checkpoint; then queues a hundred prompts of both kinds from
four clients at once, runs the same trainings in a second server on the same folders at the same time, and lists a
folder of a thousand people. Prints one JSON object: the server's memory in MB after ten runs and in the end, seconds,
and failures.
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import numpy as np

from .kills import whole
from .real_comfyui import (
    CHECKPOINT,
    Place,
    PromptError,
    Server,
    base_picture,
    generation,
    listed,
    temporary_place,
    training,
)

WARM = 10


def generate(seed: int) -> dict:
    return generation(CHECKPOINT, "person0", seed=seed)


def train(seed: int) -> dict:
    """A training of a person of its own."""
    return training(CHECKPOINT, f"person{seed}", seed=seed, preview_every=0)


def megabytes(server: Server) -> float:
    status = Path(f"/proc/{server.pid}/statm").read_text().split()
    return int(status[1]) * resource.getpagesize() / 1e6


def repeated(server: Server, graph: Callable[[int], dict], count: int) -> dict:
    """So many runs with seeds from 1, and the server's memory on the way."""
    start, warm = time.monotonic(), 0.0
    for number in range(1, count + 1):
        server.run(graph(number))
        if number == WARM:
            warm = megabytes(server)
    now = megabytes(server)
    seconds = round((time.monotonic() - start) / count, 2)
    growth = round(now / warm - 1, 4)
    return {"runs": count, "seconds_each": seconds, "mb_after_ten": round(warm), "mb": round(now), "growth": growth}


def failures(server: Server, graphs: Iterable[dict]) -> int:
    """How many of these runs, one after the other, came to no good end."""
    failed = 0
    for graph in graphs:
        try:
            server.run(graph)
        except (PromptError, OSError):
            failed += 1
    return failed


def crowd(server: Server, prompts: int, clients: int) -> dict:
    """Prompts of both kinds from several clients at once."""
    kinds = [generate] * 9 + [train]

    def client(number: int) -> int:
        turns = range(number, prompts, clients)
        return failures(server, (kinds[turn % len(kinds)](10_000 + turn) for turn in turns))

    with ThreadPoolExecutor(clients) as pool:
        return {"prompts": prompts, "clients": clients, "failures": sum(pool.map(client, range(clients)))}


def together(place: Place, server: Server, trainings: int) -> dict:
    """The same trainings, to the same files, in another server at the same time."""
    seeds = range(20_000, 20_000 + trainings)
    with place.server(name="second") as second, ThreadPoolExecutor(2) as pool:
        failed = sum(pool.map(lambda one: failures(one, map(train, seeds)), (server, second)))
        known = listed(second)
    unlisted = sum(f"person{seed}.safetensors" not in known for seed in seeds)
    return {"trainings": 2 * trainings, "failures": failed + unlisted, "broken_files": not whole(place.people)}


def long_list(server: Server, place: Place, count: int) -> dict:
    """Seconds that Load's list takes with many people in a folder that has just changed, the shortest first."""
    people = place.people / "many"
    people.mkdir()
    for number in range(count):
        shutil.copy(place.people / "person0.safetensors", people / f"{number}.safetensors")
    seconds = []
    for _ in range(5):
        (people / "last.safetensors").unlink(missing_ok=True)
        shutil.copy(people / "0.safetensors", people / "last.safetensors")  # so that nothing is cached
        start = time.monotonic()
        info = server.get("/object_info/IDEA_LoadIdentity")
        seconds.append(time.monotonic() - start)
    ((_, options),) = info["IDEA_LoadIdentity"]["input"]["required"].values()
    return {
        "people": count,
        "shown": len(options["options"]),
        "seconds": [round(one, 3) for one in sorted(seconds)],
    }


@click.command()
@click.option("--pictures", type=click.IntRange(WARM + 1), default=200)
@click.option("--trainings", type=click.IntRange(WARM + 1), default=50)
@click.option("--prompts", default=100)
def main(pictures: int, trainings: int, prompts: int) -> None:
    with temporary_place() as place, place.server() as server:
        before = base_picture(server, CHECKPOINT)
        server.run(train(0))
        report = {
            "pictures": repeated(server, generate, pictures),
            "trainings": repeated(server, train, trainings),
            "at_once": crowd(server, prompts, 4),
            "two_servers": together(place, server, 10),
            "list": long_list(server, place, 1000),
            "base_unchanged": np.array_equal(base_picture(server, CHECKPOINT), before),
        }
    print(json.dumps(report, indent=1))
    failed = report["at_once"]["failures"] + report["two_servers"]["failures"] + report["two_servers"]["broken_files"]
    sys.exit(bool(failed) or not report["base_unchanged"])


if __name__ == "__main__":
    main()
