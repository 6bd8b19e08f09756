"""Which checkpoint file a MODEL came from, read off the graph: ComfyUI's MODEL itself does not know."""

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
    """`checkpoint_of`, hashed while other work goes on: `base_checkpoint` and `base_hash` of a file.

    What is yielded waits for it, and Cancel ends the waiting.
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
    """File name and SHA-256 of the checkpoint above a node's `link` input; "" for what is not to be found or read.

    Args:
        prompt: the running graph in API format.
        node_id: the node that asks.
    """
    seen = set()
    while prompt and node_id in prompt and node_id not in seen:
        seen.add(node_id)
        inputs = prompt[node_id].get("inputs", {})
        for name, folder in _FILE_INPUTS.items():
            if isinstance(inputs.get(name), str):
                return inputs[name], _sha256(folder_paths.get_full_path(folder, inputs[name]))
        source = inputs.get(link)
        node_id = source[0] if isinstance(source, list) else None
    return "", ""


def _sha256(path: str | None) -> str:
    try:
        return file_digest(path or "")
    except OSError:  # a hash is no reason to lose a training
        return ""
