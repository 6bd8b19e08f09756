"""What all nodes share: schemas, outputs, and the pack's own socket types."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import UnionType
from typing import Any

from comfy_api.v0_0_2 import io

from ..idea_core.errors import SocketError
from ..idea_core.faces import IdEmbeds

FaceModel = io.Custom("FACE_MODEL")
IdEmbedsSocket = io.Custom("ID_EMBEDS")
IdentitySocket = io.Custom("IDENTITY")
EnhancerSocket = io.Custom("ID_ENHANCER")
SettingsSocket = io.Custom("ID_TRAINING_SETTINGS")
FaceAnalysis, InsightFace = io.Custom("FACEANALYSIS"), io.Custom("INSIGHTFACE")
"""Other packs' sockets; both carry insightface's `FaceAnalysis`."""

schema = partial(io.Schema, category="ID-EA")
SHOWS = {"has_intermediate_output": True} if hasattr(io.Schema, "has_intermediate_output") else {}
"""Schema arguments of a node that shows a result and is no output node: a cached result is shown again. Versions of
ComfyUI without this argument keep the results of the last prompt alone."""


def output(socket: type[io.ComfyTypeIO], name: str, tooltip: str, is_list: bool = False) -> io.Output:
    """An output of this name. Older ComfyUI shows the socket's type in place of an id, but never of a display name."""
    return socket.Output(name, display_name=name, tooltip=tooltip, is_output_list=is_list)


def require(value: Any, kind: type | UnionType, socket: type[io.ComfyTypeIO], source: str) -> None:
    """Raise `SocketError` unless a value is this pack's: other packs have sockets of the same names."""
    if not isinstance(value, kind):
        raise SocketError(f"{socket.io_type} from {source}", f"a {type(value).__name__}", f"Connect {source}.")


def require_embeds(value: Any) -> None:
    """Raise `SocketError` unless a value is a person's `IdEmbeds`."""
    if value is None:
        raise SocketError(
            "ID_EMBEDS of a person's face",
            "a person's file without it",
            "Connect ID Encode, with a photo of the person.",
        )
    require(value, IdEmbeds, IdEmbedsSocket, "ID Encode")


def described(training: Mapping[str, Any]) -> str:
    """A training record as lines, without its long lists."""
    values = {**training, **training.get("refine", {}), **training.get("report", {})}
    left_out = ("losses", "prompts", "refine", "report")
    return "\n".join(f"{key}: {value}" for key, value in values.items() if key not in left_out)
