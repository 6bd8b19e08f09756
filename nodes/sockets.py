"""The pack's own socket types."""

from __future__ import annotations

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
"""Other packs' sockets; both bring insightface's `FaceAnalysis`."""


def require(value: Any, kind: type, socket: type[io.ComfyTypeIO], source: str) -> None:
    """Raise `SocketError` unless a value is this pack's: other packs have sockets of the same names."""
    if not isinstance(value, kind):
        raise SocketError(f"{socket.io_type} from {source}", f"a {type(value).__name__}", f"Connect {source}.")


def require_embeds(value: Any) -> None:
    """Raise `SocketError` unless a value is a person's `IdEmbeds`."""
    require(value, IdEmbeds, IdEmbedsSocket, "ID Encode")
