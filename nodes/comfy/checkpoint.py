"""The checkpoint file behind a MODEL, found in the graph: ComfyUI's MODEL does not name it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager

import comfy.model_management
import folder_paths

from ...idea_core.files.digest import file_digest

_FILE_INPUTS = {"ckpt_name": "checkpoints", "unet_name": "diffusion_models"}


@contextmanager
def checkpoint_meanwhile(prompt: Mapping | None, node_id: str | None) -> Iterator[Callable[[], dict[str, str]]]:
    """Hash the checkpoint of `checkpoint_of` while other work runs.

    Yields:
        A function that waits for the hash: `base_checkpoint` and `base_hash`. Cancel ends the wait.
    """
    pool = ThreadPoolExecutor(1)
    hashed = pool.submit(checkpoint_of, prompt, node_id)

    def checkpoint() -> dict[str, str]:
        while not hashed.done():
            comfy.model_management.throw_exception_if_processing_interrupted()
            wait([hashed], timeout=0.1)
        return dict(zip(("base_checkpoint", "base_hash"), hashed.result()))

    try:
        yield checkpoint
    finally:
        pool.shutdown(wait=False)  # Cancel does not wait for the hash


def checkpoint_of(prompt: Mapping | None, node_id: str | None, link: str = "model") -> tuple[str, str]:
    """File name and SHA-256 of the checkpoint behind a node's `link` input; "" if it is not found or not readable.

    Args:
        prompt: the running graph in API format.
    """
    seen = set()
    while prompt and node_id in prompt and node_id not in seen:
        seen.add(node_id)
        inputs = prompt[node_id].get("inputs", {})
        for name, folder in _FILE_INPUTS.items():
            if isinstance(file := inputs.get(name), str):
                try:
                    return file, file_digest(folder_paths.get_full_path(folder, file) or "")
                except OSError:  # a missing hash must not end a training
                    return file, ""
        source = inputs.get(link)
        node_id = source[0] if isinstance(source, list) else None
    return "", ""
