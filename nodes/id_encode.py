"""ID Encode."""

from __future__ import annotations

import numpy as np
import torch
from comfy_api.v0_0_2 import io, ui

from ..idea_core.faces import FaceSettings, encode_photos
from ..idea_core.faces.encode import report
from ..idea_core.faces.pictures import MARGIN, Cut, crop_face, draw_faces, face_mask
from .comfy.face_models import engine_of
from .comfy.images import first, single_images, to_image, to_uint8
from .common import SHOWS, IdEmbedsSocket, output, schema
from .inputs import (
    ERROR,
    KEEP,
    LEAVE_OUT,
    SKIP,
    advanced,
    face_choice_inputs,
    face_model_input,
    face_settings,
    image_inputs,
    require_finite,
    widgets_of,
)


class IDEncode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="IDEA_IDEncode",
            **SHOWS,
            display_name="ID Encode",
            description="Finds the person's face in each photo, averages the face embeddings and crops the photos.",
            is_input_list=True,
            inputs=[
                face_model_input(),
                *image_inputs(
                    "Photos of one person: an image, a batch, or a list of any sizes.",
                    "More photos of the person, of any size.",
                ),
                *face_choice_inputs(),
                io.Combo.Input(
                    "no_face",
                    options=[ERROR, SKIP],
                    default=ERROR,
                    optional=True,
                    tooltip="Photos without a matching face. error: stop and name the photo. skip: leave it out.",
                ),
                io.Combo.Input(
                    "outliers",
                    options=[KEEP, LEAVE_OUT],
                    default=KEEP,
                    optional=True,
                    tooltip="Photos that look like a different person. keep: use them. leave out: do not use them. "
                    "The report names them either way.",
                ),
                io.Int.Input(
                    "crop_size",
                    default=512,
                    min=64,
                    max=2048,
                    step=64,
                    optional=True,
                    tooltip="Size of the crops in pixels: 512 for SD 1.x and 2.x, 768 for SD 2.1 768-v, 1024 for SDXL.",
                ),
                *advanced(
                    io.Float.Input(
                        "crop_margin",
                        default=MARGIN,
                        min=1.0,
                        max=5.0,
                        step=0.1,
                        optional=True,
                        tooltip="Size of the crops in face sizes. 2 includes hair, ears and shoulders.",
                    ),
                    io.Boolean.Input(
                        "upright",
                        default=True,
                        optional=True,
                        tooltip="Rotation of the crops: on turns each crop until the eyes are level.",
                    ),
                ),
                *widgets_of(FaceSettings, "aligned", optional=True),
            ],
            outputs=[
                output(
                    IdEmbedsSocket,
                    "ID_EMBEDS",
                    "Face embeddings, for ID-Enhancer Train, Instant and Refined ID-EA Embedding, and ID Similarity.",
                ),
                output(io.Image, "face_crops", "Square crops around the faces, for ID-Enhancer Train."),
                output(
                    io.Image,
                    "preview",
                    "Photos with a box and a number on every face, from left to right. Green: the face in use.",
                ),
                output(io.Mask, "face_masks", "Face area of each crop, for masks of ID-Enhancer Train."),
                output(
                    io.String,
                    "report",
                    "Text: the face in use of each photo, its detection score and its cosine to the mean.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls, face_model, images, more_images=(), crop_size=512, crop_margin=MARGIN, upright=True, **choice
    ) -> io.NodeOutput:
        require_finite(crop_margin=first(crop_margin))
        settings = face_settings(**choice)
        pixels = [to_uint8(image) for image in single_images([*images, *more_images])]
        id_embeds, photos = encode_photos(engine_of(first(face_model)), pixels, settings)
        cut = Cut(first(crop_size), first(crop_margin), first(upright))
        selected = [(one.photo, one.chosen) for one in photos if one.chosen and not one.left_out]
        crops = to_image([crop_face(photo, face, cut) for photo, face in selected])
        masks = torch.from_numpy(np.stack([face_mask(face, cut) for _, face in selected]))
        found, text = to_image(list(map(draw_faces, photos))), report(photos)
        shown = {**ui.PreviewImage(found, cls=cls).as_dict(), "text": [text]}
        return io.NodeOutput(id_embeds, crops, found, masks, text, ui=shown)
