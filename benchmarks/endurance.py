"""Many runs in one ComfyUI server: memory, and whether the base model stays as it was.

    python -m benchmarks.endurance [--pictures 200] [--trainings 50]      # COMFYUI_PATH, as for the tests

Draws pictures with a person, then trains people, on a tiny checkpoint; then queues a hundred prompts of both kinds from
four clients at once, and lists a folder of a thousand people. Prints one JSON object: the server's memory in MB after
ten runs and in the end, seconds, and failures.
"""

from __future__ import annotations

import io
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "in_comfyui")]

import face_models  # noqa: E402
from comfyui_place import find_comfyui, find_python  # noqa: E402
from PIL import Image  # noqa: E402
from server import PromptError, Server  # noqa: E402

CHECKPOINT, PACK_NAME, WARM = "tiny_sd15.safetensors", "testpack", 10
WORKFLOWS = ROOT / "workflows" / "api"


def write_base(base: Path, comfyui: Path, python: Path) -> None:
    """Base directory: one tiny checkpoint, face models, two photos, the pack."""
    (base / "custom_nodes").mkdir()
    (base / "custom_nodes" / "id-ea").symlink_to(ROOT)
    checkpoints = base / "models" / "checkpoints"
    script = ROOT / "tests" / "in_comfyui" / "tiny_checkpoints.py"
    subprocess.run([python, script, checkpoints], cwd=comfyui, check=True, capture_output=True)
    for path in checkpoints.iterdir():
        if path.name != CHECKPOINT:
            path.unlink()
    face_models.write_face_pack(base / "models" / "insightface" / "models" / PACK_NAME)
    (base / "input").mkdir()
    for number, place in enumerate([(130, 110, 90), (190, 130, 120)], start=1):
        Image.fromarray(face_models.photo(faces=[place], seed=number)).save(base / "input" / f"photo_{number}.png")


def workflow(name: str, seed: int) -> dict:
    """An example at test size; the seed makes it another run."""
    graph = json.loads((WORKFLOWS / f"{name}.json").read_text())
    person = f"person{seed}" if name == "train_identity" else "person0"
    changes = {
        "CheckpointLoaderSimple": {"ckpt_name": CHECKPOINT},
        "IDEA_LoadFaceModel": {"pack": PACK_NAME},
        "IDEA_EnhancerTrain": {"steps": 2, "resolution": 64, "seed": seed, "name": person, "preview_every": 0},
        "IDEA_SaveIdentity": {"filename": person},
        "IDEA_LoadIdentity": {"file": "person0.safetensors"},
        "EmptyLatentImage": {"width": 64, "height": 64},
        "KSampler": {"steps": 2, "seed": seed},
    }
    for node in graph.values():
        node["inputs"].update(changes.get(node["class_type"], {}))
        if "text" in node["inputs"]:
            node["inputs"]["text"] = node["inputs"]["text"].replace("<alice>", "<person0>")
    return graph


def megabytes(server: Server) -> float:
    status = Path(f"/proc/{server.pid}/statm").read_text().split()
    return int(status[1]) * resource.getpagesize() / 1e6


def plain_picture(server: Server, guidance: float) -> bytes:
    """Pixels that the base model gives without any person; another guidance, and ComfyUI draws it anew."""
    graph = workflow("generate_with_identity", 0)
    (apply,) = (key for key, node in graph.items() if node["class_type"] == "IDEA_ApplyAdapter")
    past = {0: graph[apply]["inputs"]["model"], 1: graph[apply]["inputs"]["clip"]}
    kept = {key: node for key, node in graph.items() if not node["class_type"].startswith("IDEA_")}
    for node in kept.values():
        for name, value in node["inputs"].items():
            if isinstance(value, list) and value[0] == apply:
                node["inputs"][name] = past[value[1]]
        if node["class_type"] == "KSampler":
            node["inputs"]["cfg"] = guidance
    (output,) = server.run(kept).values()
    return Image.open(io.BytesIO(server.picture(output["images"][0]))).tobytes()


def repeated(server: Server, name: str, count: int, first: int) -> dict:
    """So many runs of an example, and the server's memory on the way."""
    start, warm = time.monotonic(), 0.0
    for number in range(count):
        server.run(workflow(name, first + number))
        if number + 1 == WARM:
            warm = megabytes(server)
    now = megabytes(server)
    seconds = round((time.monotonic() - start) / count, 2)
    growth = round(now / warm - 1, 4)
    return {"runs": count, "seconds_each": seconds, "mb_after_ten": round(warm), "mb": round(now), "growth": growth}


def crowd(server: Server, prompts: int, clients: int) -> dict:
    """Prompts of both kinds from several clients at once."""
    kinds = ["generate_with_identity"] * 9 + ["train_identity"]

    def client(number: int) -> int:
        failures = 0
        for turn in range(number, prompts, clients):
            try:
                server.run(workflow(kinds[turn % len(kinds)], 10_000 + turn))
            except (PromptError, OSError):
                failures += 1
        return failures

    with ThreadPoolExecutor(clients) as pool:
        return {"prompts": prompts, "clients": clients, "failures": sum(pool.map(client, range(clients)))}


def listed(server: Server, base: Path, count: int) -> dict:
    """Seconds that Load's list takes with many people in a folder that has just changed, the shortest first."""
    people = base / "output" / "idea" / "many"
    people.mkdir()
    for number in range(count):
        shutil.copy(base / "output" / "idea" / "person0.safetensors", people / f"{number}.safetensors")
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
    comfyui = find_comfyui()
    python = find_python(comfyui)
    with tempfile.TemporaryDirectory() as place:
        base = Path(place)
        write_base(base, comfyui, python)
        server = Server(comfyui, python, base)
        try:
            before = plain_picture(server, 7.5)
            server.run(workflow("train_identity", 0))
            report = {
                "pictures": repeated(server, "generate_with_identity", pictures, 1),
                "trainings": repeated(server, "train_identity", trainings, 1),
                "at_once": crowd(server, prompts, 4),
                "list": listed(server, base, 1000),
                "base_unchanged": plain_picture(server, 7.5 + 1e-9) == before,
            }
        finally:
            server.stop()
    print(json.dumps(report, indent=1))
    sys.exit(bool(report["at_once"]["failures"]) or not report["base_unchanged"])


if __name__ == "__main__":
    main()
