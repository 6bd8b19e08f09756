"""Workflows from strangers: what the pack's nodes do with damaged and hostile inputs, in a real ComfyUI server.

    python -m benchmarks.fuzz_workflows [--workflows 1000] [--seed 0]      # COMFYUI_PATH, as for the tests

The example workflows are mutated: the inputs of this pack's nodes get paths, names of devices, numbers that are none,
other types, links to other sockets; some are left out. Each one has to run, or to be refused by ComfyUI's own checks or
by the package's own error; no file may appear or change but in the output and temp folders, and in the end the base
model has to draw the same picture as before. Prints one JSON object; fails if any of that is not so.
"""

from __future__ import annotations

import copy
import hashlib
import json
import random
import sys
from collections import Counter
from pathlib import Path

import click
import numpy as np

from idea_core import errors

from .real_comfyui import CHECKPOINT, PromptError, Server, base_picture, generation, temporary_place, training, workflow

OURS, PACK, UNKNOWN = "IDEA_", "/custom_nodes/id-ea/", "unknown"
ERRORS = {name for name, value in vars(errors).items() if isinstance(value, type)}
ROOT = Path(__file__).resolve().parent.parent
WRITTEN = ("output", "temp", "user", "server.log", "server.db")  # in the base directory
PATHS = (
    *("", "..", "../../escaped", "/escaped", "\\\\host\\escaped", "C:\\escaped", "file:///escaped", "~/escaped"),
    *(
        "con",
        "aux.safetensors",
        "nul",
        "lpt1.x",
        ".hidden",
        "a/../../escaped",
        "a//b",
        "a\0b",
        "a\nb",
        "名前",
        "e" * 300,
    ),
    *(
        "{}",
        "%s",
        "<alice>",
        "</alice>",
        "<script>",
        "‮",
        "\ud83d\ude00",
        "a" * 70_000,
        "enhancers/x",
        "autosave/../../y",
    ),
)
VALUES = (None, True, False, 0, 1, 2, -1, 0.5, 2**63, -(2**63), 1e308, -1e308, "1", "nan", "inf", "-inf", [], {}, [[]])
VALUES += ({"__value__": [1]}, {"__type__": "x"}, ["1"], ["1", 99], ["nobody", 0], [1, 0], ["1", "0"], ["1", -1])


def graphs() -> list[dict]:
    """Examples at test size that take a second each."""
    checkpoint = {"CheckpointLoaderSimple": {"ckpt_name": f"{CHECKPOINT}.safetensors"}}
    edits = generation(CHECKPOINT, "alice")
    edits["edit"] = {
        "class_type": "IDEA_EditIdentity",
        "inputs": {"identity": ["2", 0], "name": "carol", "keep_face": True, "keep_training": True, "kv_rank": 0},
    }
    edits["save"] = {"class_type": "IDEA_SaveIdentity", "inputs": {"identity": ["edit", 0], "filename": "carol"}}
    edits["info"] = {"class_type": "IDEA_IdentityInfo", "inputs": {"identity": ["edit", 0]}}
    return [
        generation(CHECKPOINT, "alice"),
        edits,
        training(CHECKPOINT, "bob", preview_every=0),
        workflow("blend_people", **checkpoint),
        workflow("encode_and_compare"),
    ]


def mutated(graph: dict, chance: random.Random) -> dict:
    """Another graph: some inputs of this pack's nodes are others."""
    graph = copy.deepcopy(graph)
    ours = [node for node in graph.values() if node["class_type"].startswith(OURS)]
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        node = chance.choice(ours)
        inputs = node["inputs"]
        name, kind = chance.choice([*inputs, UNKNOWN]), chance.random()
        if name == UNKNOWN:
            inputs[name] = chance.choice(PATHS)  # no link: ComfyUI 0.9.1 ends its worker at a broken one
        elif kind < 0.1:
            inputs.pop(name)
        elif kind < 0.2:
            inputs[name] = [chance.choice(list(graph)), chance.randrange(4)]
        elif kind < 0.95:
            paths = kind < (0.75 if isinstance(inputs[name], str) else 0.3)
            inputs[name] = chance.choice(PATHS if paths else VALUES)
        else:
            node["class_type"] = chance.choice(ours)["class_type"]
    return graph


def outcome(server: Server, graph: dict) -> str:
    """What became of a workflow: who refused it, "ran", or what is wrong."""
    try:
        entry = server.wait(server.queue(graph), 60)
    except PromptError as error:
        circle = "RecursionError" in str(error)  # ComfyUI follows links that lead in one, and ends up anywhere
        return str(error) if PACK in str(error) and not circle else "refused by ComfyUI"
    except TimeoutError as error:
        server.post("/interrupt", {})
        return str(error)
    except OSError as error:
        return f"the server is gone: {error}"
    if entry["status"]["status_str"] == "success":
        return "ran"
    said = next(said for kind, said in entry["status"]["messages"] if kind == "execution_error")
    if said["exception_type"].rsplit(".", 1)[-1] in ERRORS:
        return "refused by the pack"
    before_the_node = PACK not in "".join(said["traceback"]) and said["node_type"].startswith(OURS)
    if before_the_node or said["exception_type"].endswith("DependencyCycleError"):
        return "refused by ComfyUI"
    return f"{said['node_type']}: {said['exception_type']}: {said['exception_message']}\n{''.join(said['traceback'])}"


def unwritten(base: Path) -> dict[str, str]:
    """Path and content of each file that nothing may change, around the base directory too."""
    paths = [path for path in base.parent.rglob("*") if path.is_file()]
    written = [base / name for name in WRITTEN]
    kept = [path for path in paths if not any(path.is_relative_to(folder) for folder in written)]
    escaped = [path for folder in (Path("/"), Path.home(), ROOT) for path in folder.glob("*escaped*")]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in [*kept, *escaped]}


@click.command()
@click.option("--workflows", default=1000)
@click.option("--seed", default=0)
@click.option("--keep", type=click.Path(path_type=Path), default="build/fuzz", help="Folder for those that failed.")
def main(workflows: int, seed: int, keep: Path) -> None:
    chance, counted = random.Random(seed), Counter()
    with temporary_place() as place, place.server() as server:
        before = base_picture(server, CHECKPOINT)
        for name in ("alice", "bob"):
            server.run(training(CHECKPOINT, name, preview_every=0))
        known, files = graphs(), unwritten(place.base)
        for graph in known:
            server.run(graph)
        for number in range(workflows):
            graph = mutated(known[number % len(known)], chance)
            result = outcome(server, graph)
            failed = not result.startswith(("ran", "refused"))
            if failed:
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{seed}-{number}.json").write_text(json.dumps([result, graph], indent=1), "utf-8")
            counted["failed" if failed else result] += 1
            if result.startswith("the server is gone"):
                sys.exit(result)
        report = {
            **counted,
            "files_elsewhere": sorted(set(files.items()) ^ set(unwritten(place.base).items())),
            "base_unchanged": np.array_equal(base_picture(server, CHECKPOINT), before),
        }
    print(json.dumps(report, indent=1))
    sys.exit(bool(counted["failed"] or report["files_elsewhere"]) or not report["base_unchanged"])


if __name__ == "__main__":
    main()
