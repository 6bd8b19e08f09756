"""Make the front-end files of the example workflows from those in API format, in numbered groups and columns.

    python tools/workflows.py URL [NAME…]

URL is the oldest supported ComfyUI that has the nodes of these workflows (all, or those of the API files NAME), with
this pack: all later versions have its inputs and outputs. The API file holds, under `_meta`, each node's title, group
and column, and whether it is to be filled in (`fill`). Node 1 also holds the workflow's name in the template browser,
the note, and the first and last column below the note.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

WORKFLOWS = Path(__file__).resolve().parents[1] / "workflows"
# Pixels. At 1600 × 1000 the front end fits at most 2079 × 1104 of them into view and still draws texts.
WIDTH, GAP, LEFT = 340, 60, 40
TITLE, HEAD, PAD = 30, 36, 12  # height of a node's title bar and of a group's; border of a group
BELOW = 14  # between nodes
BELOW_FILE = 36  # below a node that names a file: for the bar of Nodes 2.0 below a node with an error
BETWEEN = 16  # groups
# Heights in Nodes 2.0 with advanced inputs unfolded; those of the classic look are never larger.
ENDS, SOCKET, WIDGET, STRING, TEXT, SMALL_TEXT, FOLD, LINES = 38, 20, 28, 36, 44, 50, 24, 50
PICTURE, WIDE_PICTURE = 220, 170
NOTE, LINE, LETTER = 40, 21, 6.9  # height of a note's ends and of a line, and width of a letter
PICTURED = {"SaveImage", "PreviewImage", "LoadImage", "IDEA_LoadIdentity", "IDEA_IDEncode"}
PICTURED |= {"IDEA_RefinedIdentity"}
PICTURED_WIDE = {"IDEA_EnhancerTrain", "IDEA_EnhancerTrainAcross"}
COLLAPSED = {"VAEDecode"}  # nothing to see or to set
TELLING = {"IDEA_SaveIdentity", "IDEA_SaveEnhancer", "IDEA_EnhancerTrain", "IDEA_EnhancerTrainAcross", "PreviewAny"}
FILES = {"ckpt_name", "lora_name", "pack", "file", "unet_name", "clip_name", "vae_name"}  # inputs
FILL = {"color": "#232", "bgcolor": "#353"}  # ComfyUI's green
NOTED = {"color": "#432", "bgcolor": "#653"}  # and its colour of notes
COLORS = ("#6aa5d8", "#8A8", "#c77dd0", "#d6a93b", "#99b", "#d98a5b", "#6bb", "#c88")  # and of groups
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
# Links as in ComfyUI's own templates: folder of a file → name → its place.
MODELS = {
    "checkpoints": {
        "v1-5-pruned-emaonly-fp16.safetensors": "Comfy-Org/stable-diffusion-v1-5-archive/resolve/main",
        "sd_xl_base_1.0.safetensors": "stabilityai/stable-diffusion-xl-base-1.0/resolve/main",
    },
    "diffusion_models": {
        "z_image_bf16.safetensors": "Comfy-Org/z_image/resolve/main/split_files/diffusion_models",
        "flux-2-klein-base-4b.safetensors": "Comfy-Org/flux2-klein/resolve/main/split_files/diffusion_models",
    },
    "text_encoders": {"qwen_3_4b.safetensors": "Comfy-Org/z_image_turbo/resolve/main/split_files/text_encoders"},
    "vae": {
        "ae.safetensors": "Comfy-Org/z_image_turbo/resolve/main/split_files/vae",
        "flux2-vae.safetensors": "Comfy-Org/flux2-dev/resolve/main/split_files/vae",
    },
}
Graph = Mapping[str, Mapping[str, Any]]


class Layout(NamedTuple):
    """Boxes [x, y, width, height]; those of nodes without their title bar."""

    nodes: Mapping[str, list[int]]
    groups: Mapping[str, list[int]]
    note: list[int]


def front_end(api: Graph, info: Mapping[str, Any]) -> dict[str, Any]:
    """The graph in the format of ComfyUI's front end."""
    layout, links, nodes = lay_out(api, info), [], []
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
        x, y, width, height = layout.nodes[key]
        entry = {
            "id": int(key),
            "type": node["class_type"],
            "pos": [x, y],
            "size": [width, height],
            "flags": {"collapsed": True} if node["class_type"] in COLLAPSED else {},
            "order": int(key) - 1,
            "mode": 0,
            "inputs": sockets,
            "outputs": [{"name": n, "type": t, "links": []} for n, t in zip(spec["output_name"], spec["output"])],
            "properties": {"Node name for S&R": node["class_type"], **known_models(node["inputs"])},
            "widgets_values": widgets,
        }
        if node["_meta"]["title"] != spec["display_name"]:
            entry["title"] = node["_meta"]["title"]
        if node["_meta"].get("fill"):
            entry |= FILL
        nodes.append(entry)
    for number, source, slot, *_ in links:
        nodes[source - 1]["outputs"][slot]["links"].append(number)
    about = api["1"]["_meta"]
    nodes.append(note_node(len(nodes) + 1, about["template"], about["note"], layout.note))
    return {
        "last_node_id": len(nodes),
        "last_link_id": len(links),
        "nodes": nodes,
        "links": links,
        "groups": [
            {"id": number, "title": title, "bounding": box, "color": color, "font_size": 24, "flags": {}}
            for number, ((title, box), color) in enumerate(zip(layout.groups.items(), COLORS), 1)
        ],
        "config": {},
        "extra": {},
        "version": 0.4,
    }


def known_models(inputs: Mapping[str, Any]) -> dict[str, list]:
    """Links to the files in a node's inputs, for the front end's list of missing models."""
    models = [
        {"name": name, "url": f"https://huggingface.co/{place}/{name}?download=true", "directory": folder}
        for folder, known in MODELS.items()
        for name, place in known.items()
        if name in inputs.values()
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


def lay_out(api: Graph, info: Mapping[str, Any]) -> Layout:
    """The note on top of its columns, then the groups in the order of their numbers.

    A group begins below what its columns hold already. In a column nodes stand in the order of the file.
    """
    about = api["1"]["_meta"]
    first, last = about["note_columns"]
    width = (last - first + 1) * (WIDTH + GAP) - GAP
    note = [left_of(first), TITLE, width, note_height(about["note"], width)]
    bottoms = dict.fromkeys(range(first, last + 1), TITLE + note[3] + BETWEEN)
    nodes, groups = {}, {}
    for title in sorted({node["_meta"]["group"] for node in api.values()}):
        own = {key: node for key, node in api.items() if node["_meta"]["group"] == title}
        covered = {node["_meta"]["column"] for node in own.values()}
        top = max(bottoms.get(column, 0) for column in covered)
        ends = dict.fromkeys(covered, top + HEAD)
        for key, node in own.items():
            column = node["_meta"]["column"]
            height = height_of(node, info[node["class_type"]])
            y = ends[column] + TITLE
            nodes[key] = [left_of(column), y, WIDTH, height]
            shown = 0 if node["class_type"] in COLLAPSED else height
            ends[column] = y + shown + (BELOW_FILE if FILES & set(node["inputs"]) else BELOW)
        x, wide = left_of(min(covered)) - PAD, len(covered) * (WIDTH + GAP) - GAP + 2 * PAD
        groups[title] = [x, top, wide, max(ends.values()) - top]
        bottoms |= dict.fromkeys(covered, max(ends.values()) + BETWEEN)
    return Layout(nodes, groups, note)


def height_of(node: Mapping[str, Any], spec: Mapping[str, Any]) -> int:
    kinds = inputs_of(spec).values()
    sockets = sum(not is_widget(kind) for kind, _ in kinds)
    height = ENDS + SOCKET * max(sockets, len(spec["output"]))
    for kind, options in kinds:
        if is_widget(kind):
            text = SMALL_TEXT if options.get("placeholder") else TEXT
            height += text if options.get("multiline") else STRING if kind == "STRING" else WIDGET
    height += FOLD * any(options.get("advanced") for _, options in kinds)
    if node["class_type"] in TELLING or (node["class_type"] == "CLIPTextEncode" and node["_meta"].get("fill")):
        height += LINES  # for what the node says after a run, such as which name is unknown
    height += WIDE_PICTURE * (node["class_type"] in PICTURED_WIDE)
    return height + PICTURE * (node["class_type"] in PICTURED)


def left_of(column: int) -> int:
    return LEFT + (column - 1) * (WIDTH + GAP)


def note_height(text: str, width: int) -> int:
    letters = int(width / LETTER)
    lines = text.replace("**", "").split("\n")
    return NOTE + LINE * sum(max(-(-len(line) // letters), 1) for line in lines)


def note_node(number: int, title: str, text: str, box: list[int]) -> dict[str, Any]:
    return {
        "id": number,
        "type": "MarkdownNote",
        "title": title,
        "pos": box[:2],
        "size": box[2:],
        "flags": {},
        "order": number - 1,
        "mode": 0,
        "inputs": [],
        "outputs": [],
        "properties": {},
        "widgets_values": [text],
        **NOTED,
    }


if __name__ == "__main__":
    URL, *NAMES = sys.argv[1:]
    with urllib.request.urlopen(f"{URL}/object_info", timeout=60) as answer:
        known = json.loads(answer.read())
    for path in sorted((WORKFLOWS / "api").glob("*.json")):
        graph = json.loads(path.read_text("utf-8"))
        if path.stem in NAMES or (not NAMES and all(node["class_type"] in known for node in graph.values())):
            text = json.dumps(front_end(graph, known), ensure_ascii=False, indent=1)
            (WORKFLOWS / f"{graph['1']['_meta']['template']}.json").write_text(text + "\n", "utf-8")
