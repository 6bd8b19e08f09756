"""All texts of the nodes, as ComfyUI's locales have them:  python tools/node_texts.py URL > locales/en/nodeDefs.json

URL is that of a ComfyUI with the pack, such as http://127.0.0.1:8188.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from typing import Any


def texts_of(nodes: dict[str, Any]) -> dict[str, Any]:
    """Texts of this pack's nodes, from ComfyUI's /object_info."""
    return {key: _texts(node) for key, node in nodes.items() if key.startswith("IDEA_")}


def _texts(node: dict[str, Any]) -> dict[str, Any]:
    inputs = {**node["input"].get("required", {}), **node["input"].get("optional", {})}
    outputs = zip(node["output_name"], node["output_tooltips"])
    return {
        "display_name": node["display_name"],
        "description": node["description"],
        "inputs": {name: {"name": name, "tooltip": options["tooltip"]} for name, (_, options) in inputs.items()},
        "outputs": {str(number): {"name": name, "tooltip": tip} for number, (name, tip) in enumerate(outputs)},
    }


if __name__ == "__main__":
    with urllib.request.urlopen(sys.argv[1].rstrip("/") + "/object_info", timeout=60) as answer:
        print(json.dumps(texts_of(json.load(answer)), indent=1, ensure_ascii=False))
