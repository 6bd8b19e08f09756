"""Sentences shown where they belong: in the log, and as a line on a node."""

from __future__ import annotations

import logging
import sys

from comfy_execution.utils import get_executing_context

logger = logging.getLogger(__name__)


def running_server():
    """ComfyUI's server; None where ComfyUI runs without one."""
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)


def show_on_node(text: str, node_id: str | None) -> None:
    """Show `text` as a line on a node, where a server runs."""
    server = running_server()
    if server is not None and node_id is not None:
        server.send_progress_text(text, node_id)


def running_node() -> str | None:
    """Id of the node that ComfyUI is executing."""
    running = get_executing_context()
    return None if running is None else running.node_id


def warn(text: str, node_id: str | None = None) -> None:
    """Log a warning, and show it on a node: the one given, else the one that runs now."""
    logger.warning("ID-EA: %s", text)
    show_on_node(text, node_id or running_node())
