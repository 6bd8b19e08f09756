"""The pack's own socket types."""

from comfy_api.latest import io

FaceModel = io.Custom("IDEA_FACE_MODEL")
IdEmbedsSocket = io.Custom("IDEA_ID_EMBEDS")
IdentitySocket = io.Custom("IDEA_IDENTITY")
