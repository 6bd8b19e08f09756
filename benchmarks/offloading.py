"""Training and applying under ComfyUI's ways of keeping weights: streamed, offloaded, in half precision, in fp8.

    python -m benchmarks.offloading [--device gpu] [--budget 540]

Takes COMFYUI_PATH as the tests do. For each way a ComfyUI process of its own trains a person on a tiny checkpoint to
the end, cancelled and failed, and draws the base and a person before and after. Rows of JSON are printed as they come:
what changed, and how far losses and pictures are from those on the processor. Exit code 1 where something is wrong.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import click

from .real_comfyui import Place, temporary_place

WORKER = Path(__file__).resolve().parent.parent / "tests" / "in_comfyui" / "worker.py"
ANYWHERE = ("--fp32-unet", "--fp16-unet", "--bf16-unet", "--fp8_e4m3fn-unet", "--cpu-vae", "--fp16-text-enc")
ON_A_GPU = ("", "--disable-dynamic-vram", "--highvram", "--lowvram", "--novram", "--gpu-only")
COARSE = ("fp16", "bf16", "fp8")
"""Of the options that round weights; pictures of the others are near the processor's."""


def trained(place: Place, option: str, device: str, limit: float) -> dict:
    """What `as_started` of the tests' probes says in a ComfyUI with one option."""
    environment = {**os.environ, "IDEA_TEST_DEVICE": device}
    command = [place.python, WORKER, place.base, *([option] if option else [])]
    call = json.dumps({"probe": "as_started", "arguments": {}}) + "\n"
    log = place.base / f"worker{option}.log"
    with open(log, "w") as said:
        pipes = {"input": call, "stdout": subprocess.PIPE, "stderr": said, "text": True, "timeout": limit}
        try:
            done = subprocess.run(list(map(str, command)), cwd=place.comfyui, env=environment, **pipes)
        except subprocess.TimeoutExpired:
            return {"error": f"not done after {limit:.0f} s"}
    if not done.stdout.strip():
        return {"error": log.read_text(errors="replace")[-2000:]}
    answer = json.loads(done.stdout)
    return answer.get("result", answer)


def row(option: str, result: dict, reference: dict) -> dict:
    """What is to be seen of one way, beside the reference."""
    if "error" in result:
        return {"option": option, "ok": False, "error": result["error"]}
    far = max(abs(a - b) / abs(b) for a, b in zip(result["losses"], reference["losses"]))
    drawn = max(abs(a - b) for a, b in zip(result["picture"], reference["picture"]))
    same = result["again"] == result["losses"] and result["runs"] == ["failed", "stopped", "whole"]
    coarse = any(word in option for word in COARSE)
    learnt = result["kv"] > 0 and result["applied"] > 1e-3
    return {
        "option": option or "default",
        "ok": same and learnt and result["changed pictures"] == 0 and (far < 0.1 if coarse else max(far, drawn) < 0.05),
        "losses off by": round(far, 5),
        "picture off by": round(drawn, 4),
        "picture changed by a training": result["changed pictures"],
        **{key: result[key] for key in ("device", "streamed", "stored", "peak")},
    }


@click.command(help=__doc__)
@click.option("--device", type=click.Choice(["cpu", "gpu"]), default="cpu", show_default=True)
@click.option("--budget", default=540.0, show_default=True, help="Seconds after which no further way is begun.")
def main(device: str, budget: float) -> None:
    start, rows = time.monotonic(), []
    with temporary_place() as place:
        reference = trained(place, "", "cpu", budget)
        if "error" in reference:
            raise click.ClickException(reference["error"])
        for option in (*(ON_A_GPU if device == "gpu" else ()), *ANYWHERE):
            left = budget - (time.monotonic() - start)
            if left <= 0:
                click.echo(json.dumps({"option": option, "left out": "no time"}))
                continue
            rows.append(row(option, trained(place, option, device, left), reference))
            click.echo(json.dumps(rows[-1]))
    sys.exit(not rows or not all(one["ok"] for one in rows))


if __name__ == "__main__":
    main()
