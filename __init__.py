"""ID-EA for ComfyUI: a person in any prompt, from a few photos."""

from .nodes.extension import comfy_entrypoint

__all__ = ["comfy_entrypoint"]
