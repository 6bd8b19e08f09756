"""Switches off the telemetry of the libraries that this package uses, whoever imports them.

This module imports the standard library alone. ComfyUI runs it by its path, before it loads any pack of nodes.
"""

from __future__ import annotations

import logging
import os
import sys

logger = logging.getLogger(__name__)

SWITCHES = {
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime, which also writes a database under the home folder
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub, diffusers, transformers
    "NO_ALBUMENTATIONS_UPDATE": "1",  # asks for a newer version when insightface imports it
    "RAY_USAGE_STATS_ENABLED": "0",
    "DO_NOT_TRACK": "1",
}
"""Environment variable → value. A library reads its variable when it is imported."""


def keep_quiet() -> None:
    """Switch telemetry off in this process and in those started from it.

    A library that was imported before has read its variable already. onnxruntime can still be stopped from collecting
    more, but it sends the record of its start some ten seconds later. A warning says so.
    """
    switched_off = os.environ.get("ORT_DISABLE_TELEMETRY", "").lower() not in ("", "0", "false")
    os.environ.update(SWITCHES)
    stop = getattr(sys.modules.get("onnxruntime"), "disable_telemetry_events", None)
    if stop is not None and not switched_off:
        stop()
        logger.warning(
            "ID-EA: onnxruntime was imported first, and has begun to send telemetry. "
            "Import idea_core before it, or set ORT_DISABLE_TELEMETRY=1 before the program starts."
        )


keep_quiet()
