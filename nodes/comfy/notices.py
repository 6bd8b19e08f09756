"""What a node shows while it runs: a line of text, and images."""

from __future__ import annotations

import sys

from comfy_api.v0_0_2 import ui
from comfy_execution.utils import get_executing_context
from torch import Tensor


def running_server():
    """ComfyUI's server; None where ComfyUI runs without one."""
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)


def running_node() -> str | None:
    """Id of the node that ComfyUI executes."""
    context = get_executing_context()
    return None if context is None else context.node_id


def show_on_node(text: str, node_id: str | None) -> None:
    """Show `text` as a line on a node, where a server runs."""
    server = running_server()
    if server is not None and node_id is not None:
        server.send_progress_text(text, node_id)


def show_as_output(image: Tensor, node_id: str | None) -> bool:
    """Show an IMAGE (1, H, W, 3) as the node's output, until the next one; False if no browser is connected.

    In Nodes 2.0 a preview of ComfyUI's progress bar would stay on the node, beside the image that the node returns.
    """
    server = running_server()
    if server is None or server.client_id is None or node_id is None:
        return False
    message = {"node": node_id, "display_node": node_id, "prompt_id": server.last_prompt_id}
    server.send_sync("executed", {**message, "output": ui.PreviewImage(image).as_dict()}, server.client_id)
    return True
