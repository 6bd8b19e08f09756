"""The pack's example workflows with the world's files and prompts, in ComfyUI's list of workflows."""

from __future__ import annotations

import json
from itertools import cycle
from pathlib import Path
from typing import Any

from .names import known_names
from .scenes import SIZE, portraits

NAME = "idea-world"
SIDE = 2 * SIZE  # pixels: the widened VAE doubles them
LEFT_OUT = ("SDXL", "LoRA", "Z-Image", "FLUX")  # the world is one checkpoint of Stable Diffusion 1.x, and has no LoRA
SCENE = "smiling, wearing a red hat, in front of a blue wall"
STEPS, GUIDANCE = 20, 3.0
CROP_MARGIN = 1.4  # the frame of the world's own pictures; of a wider one nobody is learned here
_CELEBRITIES, _PROMPTS = "\n".join(known_names()), "\n".join(portraits(8))
VALUES = {  # in the examples → here
    "v1-5-pruned-emaonly-fp16.safetensors": f"{NAME}.safetensors",
    "antelopev2": NAME,
    "alice.safetensors": f"{NAME}-alice.safetensors",
    "bob.safetensors": f"{NAME}-bob.safetensors",
    "my_checkpoint.safetensors": f"{NAME}.safetensors",
    "my_checkpoint": NAME,
    "alice": "carol",  # a new person, whom the example trains
    "photo of <person> as an astronaut": f"a photo of <person>, {SCENE}",
    "photo of <alice> in a red coat, in a park": "a photo of <alice>, wearing a red hat, in front of a green wall",
    "photo of <bob> in a black suit, in a park": "a photo of <bob>, smiling, in front of a green wall",
    "photo of two people standing in a park": "a photo of a person, in front of a green wall",
    "blurry, deformed": "",
    768: SIDE * 3 // 2,
    512: SIDE,
}
# Values by their place in a node. The training across people ends in minutes.
CHANGED = {
    "KSampler": {2: STEPS, 3: GUIDANCE},
    "IDEA_IDEncode": {6: CROP_MARGIN, 7: False},
    "IDEA_EnhancerTrain": {-1: _CELEBRITIES},
    "IDEA_RefinedIdentity": {7: GUIDANCE, -1: _PROMPTS},
    "IDEA_EnhancerTrainAcross": {1: 12, 6: GUIDANCE, 8: 0.1, 9: 0.25, 10: 20, 11: 10, -2: _CELEBRITIES, -1: _PROMPTS},
}
PHOTOS = ("alice-1", "alice-2", "bob-1")  # in the order of an example's Load Image nodes


def write_examples(comfyui: Path) -> list[Path]:
    """Write the examples of the pack in a ComfyUI, or beside this code, into its workflows. Their paths."""
    folder = comfyui / "user" / "default" / "workflows" / NAME
    return [_write(file, folder) for file in _examples(comfyui) if not any(word in file.stem for word in LEFT_OUT)]


def adapted(graph: dict[str, Any]) -> dict[str, Any]:
    """An example in the front end's format, with the world's files, prompts and sizes."""
    photos = cycle(PHOTOS)
    for node in sorted(graph["nodes"], key=lambda node: node["id"]):
        values = node.get("widgets_values")
        if not values or node["type"] == "MarkdownNote":
            continue
        node["widgets_values"] = values = [_VALUES.get((type(v), v), v) for v in values]
        if node["type"] == "LoadImage":
            values[0] = f"{NAME}-{next(photos)}.png"
        for place, value in CHANGED.get(node["type"], {}).items():
            values[place] = value
    return graph


_VALUES = {(type(value), value): new for value, new in VALUES.items()}  # 1, 1.0 and True are three values


def _examples(comfyui: Path) -> list[Path]:
    """Files of the pack's examples: in ComfyUI, else beside this code."""
    places = [*sorted((comfyui / "custom_nodes").glob("*/workflows")), Path(__file__).parents[1] / "workflows"]
    found = (sorted(place.glob("[0-9][0-9] *.json")) for place in places if (place / "api").is_dir())
    return next((files for files in found if files), [])


def _write(file: Path, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file.name
    path.write_text(json.dumps(adapted(json.loads(file.read_text("utf-8"))), indent=1), "utf-8")
    return path
