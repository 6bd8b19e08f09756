"""ID-EA for ComfyUI: a person in any prompt, from a few photos."""

from .nodes.extension import comfy_entrypoint

WEB_DIRECTORY = "./web"  # help pages

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
