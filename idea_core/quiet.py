"""Libraries that report on their users report nothing where this package is used, whoever imports them.

It imports the standard library alone: ComfyUI runs it by its path, before any pack of nodes is loaded.
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
"""Environment variable → value; libraries read theirs when they are imported."""


def keep_quiet() -> None:
    """Switch reports off, here and in processes started from here.

    What was imported before has read its switch, and cannot be stopped from outside. onnxruntime is told to collect no
    more; the start of it that it has noted, it sends some ten seconds later. A warning says so.
    """
    told = os.environ.get("ORT_DISABLE_TELEMETRY", "").lower() not in ("", "0", "false")
    os.environ.update(SWITCHES)
    stop = getattr(sys.modules.get("onnxruntime"), "disable_telemetry_events", None)
    if stop is not None and not told:
        stop()
        logger.warning(
            "ID-EA: onnxruntime was imported first, and has begun to report on itself. "
            "Import idea_core before it, or set ORT_DISABLE_TELEMETRY=1 before the program starts."
        )


keep_quiet()
