"""What a node shows while it runs: a line of text, and images."""

from __future__ import annotations

import html
import logging
import sys
from pathlib import Path

from comfy_api.v0_0_2 import ui
from comfy_execution.utils import get_executing_context
from torch import Tensor

from .paths import shown_path

logger = logging.getLogger(__name__)


def running_server():
    """ComfyUI's server; None where ComfyUI runs without one."""
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)


def running_node() -> str | None:
    """Id of the node that ComfyUI executes."""
    context = get_executing_context()
    return None if context is None else context.node_id


def show_on_node(text: str, node_id: str | None) -> None:
    """Show `text` as a line on a node, where a server runs. The front end reads HTML, and would drop "<alice>"."""
    server = running_server()
    if server is not None and node_id is not None:
        server.send_progress_text(html.escape(text, quote=False), node_id)


def said_saved(what: str, path: Path, wanted: Path, holder: str) -> str:
    """Log, and show on the running node, where something was saved; the same text.

    Args:
        wanted: the path that was asked for; it holds `holder` if the file went elsewhere.
    """
    text = f"{what} is saved: {shown_path(path)}"
    if path != wanted:
        text += f". {wanted.name} holds {holder}, so it was kept"
    logger.info("ID-EA: %s", text)
    show_on_node(text, running_node())
    return text


def show_as_output(image: Tensor, node_id: str | None) -> bool:
    """Show an IMAGE (1, H, W, 3) as the node's output, until the next one; False if no browser is connected."""
    server = running_server()
    if server is None or server.client_id is None or node_id is None:
        return False
    message = {"node": node_id, "display_node": node_id, "prompt_id": server.last_prompt_id}
    server.send_sync("executed", {**message, "output": ui.PreviewImage(image).as_dict()}, server.client_id)
    return True
