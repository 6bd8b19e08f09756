"""Make the front-end files of the example workflows from those in API format, laid out from left to right.

    python tools/workflows.py URL NAME…

URL is the oldest supported ComfyUI with this pack: all later versions have its inputs and outputs. The API file holds a
node's title, and a note beside the graph, under `_meta`.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

WORKFLOWS = Path(__file__).resolve().parents[1] / "workflows"
WIDTH, GAP, TOP = 340, 60, 60  # pixels
BELOW = 90  # for the next node's title, and the bar of Nodes 2.0 below a node with an error
# Heights in Nodes 2.0 with advanced inputs unfolded; those of the classic look are never larger.
ENDS, SOCKET, WIDGET, STRING, TEXT, PICTURE, FOLD = 38, 20, 28, 36, 110, 320, 24
NOTE, LINE, LETTERS = 60, 22, 110  # height of a note's ends and of a line, and letters in a line
PICTURED = {"SaveImage", "PreviewImage", "LoadImage", "IDEA_EnhancerTrain"}
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
# Links as in ComfyUI's own templates.
MODELS = {
    name: f"https://huggingface.co/{place}/resolve/main/{name}?download=true"
    for name, place in {
        "v1-5-pruned-emaonly-fp16.safetensors": "Comfy-Org/stable-diffusion-v1-5-archive",
        "sd_xl_base_1.0.safetensors": "stabilityai/stable-diffusion-xl-base-1.0",
    }.items()
}
Graph = Mapping[str, Mapping[str, Any]]


def front_end(api: Graph, info: Mapping[str, Any]) -> dict[str, Any]:
    """The graph in the format of ComfyUI's front end."""
    places, links, nodes = place(api, info), [], []
    for key, node in api.items():
        spec = info[node["class_type"]]
        sockets, widgets = [], []
        for name, (kind, options) in inputs_of(spec).items():
            value = node["inputs"].get(name)
            if isinstance(value, list):
                source, slot = value
                kind = info[api[source]["class_type"]]["output"][slot]
                links.append([len(links) + 1, int(source), slot, int(key), len(sockets), kind])
                sockets.append({"name": name, "type": kind, "link": len(links)})
            elif is_widget(kind):
                widgets.append(value)
                if options.get("control_after_generate"):
                    widgets.append("fixed")
                if options.get("image_upload"):
                    widgets.append("image")
            else:
                sockets.append({"name": name, "type": kind, "link": None})
        x, y, height = places[key]
        entry = {
            "id": int(key),
            "type": node["class_type"],
            "pos": [x, y],
            "size": [WIDTH, height],
            "flags": {},
            "order": int(key) - 1,
            "mode": 0,
            "inputs": sockets,
            "outputs": [{"name": n, "type": t, "links": []} for n, t in zip(spec["output_name"], spec["output"])],
            "properties": {"Node name for S&R": node["class_type"], **known_models(node["inputs"])},
            "widgets_values": widgets,
        }
        if node["_meta"]["title"] != spec["display_name"]:
            entry["title"] = node["_meta"]["title"]
        nodes.append(entry)
    for number, source, slot, *_ in links:
        nodes[source - 1]["outputs"][slot]["links"].append(number)
    (note,) = (node["_meta"]["note"] for node in api.values() if "note" in node["_meta"])
    above = max(y + height for x, y, height in places.values() if x < 2 * (WIDTH + GAP))
    nodes.append(note_node(len(nodes) + 1, note, above))
    return {
        "last_node_id": len(nodes),
        "last_link_id": len(links),
        "nodes": nodes,
        "links": links,
        "groups": [],
        "config": {},
        "extra": {},
        "version": 0.4,
    }


def known_models(inputs: Mapping[str, Any]) -> dict[str, list]:
    """Links to the files in a node's inputs, for the front end's list of missing models."""
    models = [
        {"name": value, "url": MODELS[value], "directory": "checkpoints"}
        for value in inputs.values()
        if isinstance(value, str) and value in MODELS
    ]
    return {"models": models} if models else {}


def inputs_of(spec: Mapping[str, Any]) -> dict[str, tuple[Any, Mapping[str, Any]]]:
    """Name → kind and options, in the node's order."""
    inputs = {}
    for group in ("required", "optional"):
        for name in spec["input_order"].get(group, []):
            kind, *options = spec["input"][group][name]
            inputs[name] = kind, options[0] if options else {}
    return inputs


def is_widget(kind: Any) -> bool:
    return isinstance(kind, list) or kind in WIDGETS


def place(api: Graph, info: Mapping[str, Any]) -> dict[str, tuple[int, int, int]]:
    """Node → x, y and height. A node's column is one after that of its last source."""
    columns: dict[str, int] = {}
    for key, node in api.items():  # sources come first
        before = [columns[value[0]] for value in node["inputs"].values() if isinstance(value, list)]
        columns[key] = max(before, default=-1) + 1
    bottoms: dict[int, int] = {}
    places = {}
    for key, node in api.items():
        column, y = columns[key], bottoms.get(columns[key], TOP)
        height = height_of(node, info[node["class_type"]])
        places[key] = 40 + column * (WIDTH + GAP), y, height
        bottoms[column] = y + height + BELOW
    return places


def height_of(node: Mapping[str, Any], spec: Mapping[str, Any]) -> int:
    kinds = inputs_of(spec).values()
    sockets = sum(not is_widget(kind) for kind, _ in kinds)
    height = ENDS + SOCKET * max(sockets, len(spec["output"]))
    for kind, options in kinds:
        if is_widget(kind):
            height += TEXT if options.get("multiline") else STRING if kind == "STRING" else WIDGET
    height += FOLD * any(options.get("advanced") for _, options in kinds)
    height += TEXT * (node["class_type"] == "PreviewAny")  # the front end adds its text
    return height + PICTURE * (node["class_type"] in PICTURED)


def note_node(number: int, text: str, above: int) -> dict[str, Any]:
    lines = sum(max(-(-len(line) // LETTERS), 1) for line in text.split("\n"))
    return {
        "id": number,
        "type": "MarkdownNote",
        "pos": [40, above + BELOW],
        "size": [2 * WIDTH + GAP, NOTE + LINE * lines],
        "flags": {},
        "order": number - 1,
        "mode": 0,
        "inputs": [],
        "outputs": [],
        "properties": {},
        "widgets_values": [text],
    }


if __name__ == "__main__":
    url, *names = sys.argv[1:]
    with urllib.request.urlopen(f"{url}/object_info", timeout=60) as answer:
        known = json.loads(answer.read())
    for name in names:
        graph = json.loads((WORKFLOWS / "api" / f"{name}.json").read_text("utf-8"))
        text = json.dumps(front_end(graph, known), ensure_ascii=False, indent=1)
        (WORKFLOWS / f"{name}.json").write_text(text + "\n", "utf-8")
