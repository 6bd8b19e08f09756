"""Load Face Model and ID Encode."""

from __future__ import annotations

import logging

import numpy as np
import torch
from comfy_api.v0_0_2 import io

from ..idea_core.errors import FaceError
from ..idea_core.faces import FaceEngine, encode_photos, find_packs, load_engine
from ..idea_core.faces.packs import require_pack
from ..idea_core.faces.pictures import crop_face, draw_faces
from ..idea_core.faces.providers import PROVIDER_CHOICES, PROVIDERS
from .paths import insightface_roots
from .sockets import FaceModel, IdEmbedsSocket, require

CATEGORY = "ID-EA"


class LoadFaceModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IDEA_LoadFaceModel",
            display_name="Load Face Model",
            category=CATEGORY,
            description="Loads a face detector and an ArcFace recogniser from models/insightface/models. "
            "insightface's own models are for non-commercial research only.",
            inputs=[
                io.Combo.Input(
                    "pack",
                    options=list(find_packs(insightface_roots())),
                    tooltip="A folder of .onnx files in models/insightface/models, such as antelopev2 or buffalo_l. "
                    "Nothing is downloaded: put it there yourself.",
                ),
                io.Combo.Input(
                    "provider",
                    options=list(PROVIDER_CHOICES),
                    default="auto",
                    tooltip="What onnxruntime runs on. auto takes a GPU if the installed onnxruntime has one, "
                    "else the CPU.",
                ),
            ],
            outputs=[
                FaceModel.Output("face_model", display_name="FACE_MODEL", tooltip="For ID Encode."),
            ],
        )

    @classmethod
    def validate_inputs(cls, pack) -> bool | str:
        try:
            require_pack(pack, insightface_roots())
        except FaceError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, pack: str, provider: str) -> io.NodeOutput:
        engine = load_engine(require_pack(pack, insightface_roots()), provider)
        fell_back = provider != "auto" and engine.providers[0] != PROVIDERS[provider]
        log = logging.warning if fell_back else logging.info
        log("ID-EA: face model %s runs on %s (asked for: %s)", pack, engine.providers[0], provider)
        return io.NodeOutput(engine)


class IDEncode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IDEA_IDEncode",
            display_name="ID Encode",
            category=CATEGORY,
            description="Finds the largest face in each photo and averages its ArcFace embeddings.",
            inputs=[
                FaceModel.Input("face_model", tooltip="From Load Face Model."),
                io.Image.Input("images", tooltip="One or more photos of one person."),
            ],
            outputs=[
                IdEmbedsSocket.Output(
                    "id_embeds", display_name="ID_EMBEDS", tooltip="The person's face, for ID-Enhancer Train."
                ),
                io.Image.Output(
                    "crops",
                    display_name="face_crops",
                    tooltip="Square crops (512 × 512) around each face, to train on.",
                ),
                io.Image.Output(
                    "preview", display_name="preview", tooltip="The photos with every face found; green was taken."
                ),
            ],
        )

    @classmethod
    def execute(cls, face_model, images: torch.Tensor) -> io.NodeOutput:
        require(face_model, FaceEngine, FaceModel, "Load Face Model")
        id_embeds, found = encode_photos(face_model, [_to_uint8(image) for image in images])
        crops = _to_images([crop_face(f.photo, f.chosen) for f in found])
        return io.NodeOutput(id_embeds, crops, _to_images([draw_faces(f) for f in found]))


def _to_uint8(image: torch.Tensor) -> np.ndarray:
    """IMAGE (H, W, C) in 0…1 → (H, W, 3) uint8; an alpha channel is left out, grey becomes RGB."""
    rgb = image[..., :3] if image.shape[-1] >= 3 else image[..., :1].expand(*image.shape[:-1], 3)
    return (rgb.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def _to_images(pictures: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(pictures)).float() / 255
