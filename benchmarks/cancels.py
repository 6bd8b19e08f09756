"""Runs that are cancelled at random moments, in one real ComfyUI server.

    python -m benchmarks.cancels [--cancels 200] [--seed 0]      # COMFYUI_PATH, as for the tests

Trainings with pictures on the way, pictures with a person, encoding and comparing, blending, editing and saving are
interrupted as the front end's Cancel does it. After each one every file of a person has to be whole; every seventh time
the run is done again to its end, and the base model has to draw the same picture as before. Prints one JSON object with
the nodes in which the interrupts fell; fails if any of that is not so.
"""

from __future__ import annotations

import copy
import json
import random
import sys
import time
from collections import Counter

import click
import numpy as np

from .fuzz_workflows import graphs
from .kills import whole
from .real_comfyui import CHECKPOINT, Server, base_picture, temporary_place, training


def fresh(graph: dict, seed: int) -> dict:
    """The same run with other seeds, so that nothing of it is cached."""
    graph = copy.deepcopy(graph)
    for node in graph.values():
        if "seed" in node["inputs"]:
            node["inputs"]["seed"] = seed
        if "min_score" in node["inputs"]:
            node["inputs"]["min_score"] = 0.4 + 1e-6 * seed
    return graph


def timed(server: Server, graph: dict) -> float:
    start = time.monotonic()
    server.run(graph)
    return time.monotonic() - start


def interrupted(server: Server, graph: dict, seconds: float) -> str:
    """Where an interrupt after so many seconds fell, or "too late"."""
    prompt = server.queue(graph)
    time.sleep(seconds)
    server.post("/interrupt", {})
    entry = server.wait(prompt)
    said = dict(entry["status"]["messages"])
    if entry["status"]["status_str"] == "success":
        return "too late"
    if "execution_interrupted" in said:
        return said["execution_interrupted"]["node_type"]
    return f"failed: {said['execution_error']['exception_type']}: {said['execution_error']['exception_message']}"


@click.command()
@click.option("--cancels", default=200)
@click.option("--seed", default=0)
def main(cancels: int, seed: int) -> None:
    chance, where, wrong = random.Random(seed), Counter(), []
    with temporary_place() as place, place.server() as server:
        before = base_picture(server, CHECKPOINT)
        for name in ("alice", "bob"):
            server.run(training(CHECKPOINT, name, preview_every=0))
        known = [*graphs(), training(CHECKPOINT, "dave", steps=6, preview_every=2)]
        seconds = [timed(server, fresh(graph, number)) for number, graph in enumerate(known, 1)]
        for number in range(cancels):
            chosen = number % len(known)
            graph = fresh(known[chosen], 1000 + number)
            place_of_it = interrupted(server, graph, chance.uniform(0, 0.9) * seconds[chosen])
            where[place_of_it] += 1
            if place_of_it.startswith("failed") or not whole(place.people):
                wrong.append([number, place_of_it])
            if number % 7 == 6:
                server.run(graph)
                if not np.array_equal(base_picture(server, CHECKPOINT), before):
                    wrong.append([number, "the base model has changed"])
    print(json.dumps({"cancels": cancels, "in": dict(where.most_common()), "wrong": wrong}, indent=1))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
