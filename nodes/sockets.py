"""The pack's own socket types."""

from comfy_api.v0_0_2 import io

FaceModel = io.Custom("FACE_MODEL")
IdEmbedsSocket = io.Custom("ID_EMBEDS")
IdentitySocket = io.Custom("IDENTITY")


def advanced(widget: io.Input) -> io.Input:
    """The same input, folded away by front ends that can. Not every ComfyUI has an argument for it."""
    widget.extra_dict["advanced"] = True
    return widget
