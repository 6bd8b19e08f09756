"""Pictures on a node that runs, in the place of the one that it returns."""

from __future__ import annotations

from comfy_api.v0_0_2 import ui
from torch import Tensor

from .notices import running_server


def show_as_output(image: Tensor, node_id: str | None) -> bool:
    """Show an IMAGE (1, H, W, 3) as the node's output, until another one comes; False where nobody is there to see it.

    In Nodes 2.0 a preview of ComfyUI's progress bar would stay on the node, beside the picture that the node returns.
    """
    server = running_server()
    if server is None or server.client_id is None or node_id is None:
        return False
    said = {"node": node_id, "display_node": node_id, "prompt_id": server.last_prompt_id}
    server.send_sync("executed", {**said, "output": ui.PreviewImage(image).as_dict()}, server.client_id)
    return True
