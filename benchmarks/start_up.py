"""What the pack adds to ComfyUI's start.

With ComfyUI's Python, in ComfyUI's folder:  python custom_nodes/id-ea/benchmarks/start_up.py [--rounds 5]

Loads the pack as ComfyUI does, after ComfyUI's own nodes, in a process of its own each round. Prints the median time,
its ratio to the start without the pack, the modules that take longest, and the packages that only the pack asked for.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

PACK = Path(__file__).resolve().parent.parent
CHILD = """
import asyncio, json, os, sys, time
start = time.perf_counter()
sys.path.insert(0, os.getcwd())
pack = sys.argv[1]
sys.argv[1:] = ["--cpu"]
import comfy.options
comfy.options.enable_args_parsing()
import nodes
asyncio.run(nodes.init_builtin_extra_nodes())
bare, before = time.perf_counter(), {name.split(".")[0] for name in sys.modules}
assert asyncio.run(nodes.load_custom_node(pack, module_parent="custom_nodes"))
whole = time.perf_counter()
found = {name.split(".")[0] for name in sys.modules} - before - {pack}
print("RESULT", json.dumps({"bare": bare - start, "pack": whole - bare, "packages": sorted(found)}))
"""
LINE = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)")
SLOWEST = 8


def started(*options: str) -> tuple[dict, str]:
    """One start's result, and what Python said of its imports."""
    command = [sys.executable, *options, "-c", CHILD, str(PACK)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    return json.loads(line.removeprefix("RESULT ")), done.stderr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = [started()[0] for _ in range(parser.parse_args().rounds)]
    _, said = started("-X", "importtime")
    ours = [(int(own), name) for own, name in LINE.findall(said) if ".idea_core" in name or ".nodes." in name]
    slowest = {name.removeprefix(f"{PACK}."): own / 1e6 for own, name in sorted(ours, reverse=True)[:SLOWEST]}
    seconds = {key: statistics.median(one[key] for one in rounds) for key in ("bare", "pack")}
    report = {
        "seconds": {key: round(value, 3) for key, value in seconds.items()},
        "of_the_start": round(seconds["pack"] / seconds["bare"], 4),
        "slowest_modules": slowest,
        "packages": rounds[0]["packages"],
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
