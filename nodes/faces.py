"""Load Face Model and ID Encode."""

from __future__ import annotations

import logging

import numpy as np
import torch
from comfy_api.v0_0_2 import io

from ..idea_core.faces import FaceSettings, encode_photos, find_packs
from ..idea_core.faces.encode import report
from ..idea_core.faces.face import MIN_SCORE
from ..idea_core.faces.find import RULES
from ..idea_core.faces.packs import require_pack
from ..idea_core.faces.pictures import MARGIN, Cut, crop_face, draw_faces, face_mask
from ..idea_core.faces.providers import PROVIDER_CHOICES, PROVIDERS
from .comfy.face_models import FaceModels, engine_of
from .comfy.images import first, single_images, to_image, to_uint8
from .comfy.paths import insightface_roots
from .inputs import SHOWS, advanced, require_finite
from .sockets import FaceAnalysis, FaceModel, IdEmbedsSocket, InsightFace, require_embeds

CATEGORY = "ID-EA"
ERROR, SKIP = "error", "skip"
KEEP, LEAVE_OUT = "keep", "leave out"


class LoadFaceModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IDEA_LoadFaceModel",
            **SHOWS,
            display_name="Load Face Model",
            category=CATEGORY,
            description="Loads a face detector and an ArcFace recogniser from models/insightface/models. "
            "The models of the insightface project are for non-commercial research only.",
            inputs=[
                io.Combo.Input(
                    "pack",
                    options=list(find_packs(insightface_roots())),
                    tooltip="Face models: a folder of .onnx files in models/insightface/models, such as antelopev2. "
                    "A single recogniser file works only where aligned is on. Nothing is downloaded.",
                ),
                io.Combo.Input(
                    "provider",
                    options=list(PROVIDER_CHOICES),
                    default="auto",
                    tooltip="Hardware that runs the face models. auto: the GPU if the installed onnxruntime "
                    "supports one, else the CPU.",
                ),
            ],
            outputs=[
                FaceModel.Output(
                    "face_model",
                    display_name="FACE_MODEL",
                    tooltip="Face models for ID Encode, ID Similarity, Refined ID-EA Embedding and the training nodes.",
                ),
                io.String.Output("runs_on", display_name="runs_on", tooltip="Name of the onnxruntime provider in use."),
            ],
        )

    @classmethod
    def validate_inputs(cls, pack) -> bool:
        return True  # execute says what to do; of what is refused here the front end says so only after more clicks

    @classmethod
    def fingerprint_inputs(cls, pack, provider) -> str:
        """Files that were replaced or have gone are looked at anew."""
        files = packs[pack].files() if pack in (packs := find_packs(insightface_roots())) else ()
        return repr([(file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files])

    @classmethod
    def execute(cls, pack: str, provider: str) -> io.NodeOutput:
        models = FaceModels(require_pack(pack, insightface_roots()), provider)
        runs = models.engine().providers[0]
        log = logging.info if provider in ("auto", _choice_of(runs)) else logging.warning
        log("ID-EA: face model %s runs on %s (asked for: %s)", pack, runs, provider)
        return io.NodeOutput(models, runs, ui={"text": [f"{pack} runs on {runs}"]})


class IDEncode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IDEA_IDEncode",
            **SHOWS,
            display_name="ID Encode",
            category=CATEGORY,
            description="Finds the person's face in each photo, averages the face embeddings and crops the photos.",
            is_input_list=True,
            inputs=[
                face_model_input(),
                io.Image.Input("images", tooltip="Photos of one person: an image, a batch, or a list of any sizes."),
                more_images_input("More photos of the same person, of any size."),
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
                advanced(
                    io.Float.Input(
                        "crop_margin",
                        default=MARGIN,
                        min=1.0,
                        max=5.0,
                        step=0.1,
                        optional=True,
                        tooltip="Size of the crops in face sizes. 2 includes hair, ears and shoulders.",
                    )
                ),
                advanced(
                    io.Boolean.Input(
                        "upright",
                        default=True,
                        optional=True,
                        tooltip="Rotation of the crops: on turns each crop until the eyes are level.",
                    )
                ),
                aligned_input(),
            ],
            outputs=[
                IdEmbedsSocket.Output(
                    "id_embeds",
                    display_name="ID_EMBEDS",
                    tooltip="Face embeddings, for ID-Enhancer Train, Instant and Refined ID-EA Embedding, and "
                    "ID Similarity.",
                ),
                io.Image.Output(
                    "crops", display_name="face_crops", tooltip="Square crops around the faces, for ID-Enhancer Train."
                ),
                io.Image.Output(
                    "preview",
                    display_name="preview",
                    tooltip="Photos with a box and a number on every face, from left to right. Green: the face in use.",
                ),
                io.Mask.Output(
                    "masks",
                    display_name="face_masks",
                    tooltip="Face area of each crop, for masks of ID-Enhancer Train.",
                ),
                io.String.Output(
                    "report",
                    display_name="report",
                    tooltip="Text: the face in use of each photo, its detection score and its cosine to the mean.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        face_model,
        images,
        more_images=(),
        no_face=ERROR,
        outliers=KEEP,
        crop_size=512,
        crop_margin=MARGIN,
        upright=True,
        **choice,
    ) -> io.NodeOutput:
        require_finite(crop_margin=first(crop_margin))
        settings = face_settings(**choice, skip=first(no_face) == SKIP, leave_out_outliers=first(outliers) == LEAVE_OUT)
        photos = [to_uint8(image) for image in single_images([*images, *more_images])]
        id_embeds, found = encode_photos(engine_of(first(face_model)), photos, settings)
        cut = Cut(first(crop_size), first(crop_margin), first(upright))
        taken = [f for f in found if not f.left_out]
        crops = to_image([crop_face(f.photo, f.chosen, cut) for f in taken])
        masks = torch.from_numpy(np.stack([face_mask(f.chosen, cut) for f in taken]))
        text = report(found)
        return io.NodeOutput(id_embeds, crops, to_image(list(map(draw_faces, found))), masks, text, ui={"text": [text]})


def face_model_input(
    tooltip: str = "Face models from Load Face Model, or FACEANALYSIS or INSIGHTFACE of another pack.",
    optional: bool = False,
) -> io.Input:
    return io.MultiType.Input("face_model", [FaceModel, FaceAnalysis, InsightFace], tooltip=tooltip, optional=optional)


def more_images_input(tooltip: str) -> io.Input:
    """So that two pictures need no node that makes a batch, where ComfyUI would crop one to the other's size."""
    return io.Image.Input("more_images", optional=True, tooltip=tooltip)


def face_choice_inputs() -> list[io.Input]:
    """Inputs that say which face of a photo is meant; read by `face_settings`."""
    return [
        io.Combo.Input(
            "face",
            options=list(RULES),
            default=RULES[0],
            optional=True,
            tooltip="Face to use if a photo shows several: by size, detection score, position or number, "
            "or the face most similar to nearest_to.",
        ),
        io.Int.Input(
            "number",
            default=1,
            min=1,
            max=99,
            optional=True,
            tooltip="Number of the face, counted from left to right. Only for face = by number.",
        ),
        IdEmbedsSocket.Input(
            "nearest_to", optional=True, tooltip="Face embeddings of the person to look for. Only for face = nearest."
        ),
        io.Float.Input(
            "min_score",
            default=MIN_SCORE,
            min=0.05,
            max=0.95,
            step=0.05,
            optional=True,
            tooltip="Lowest detection score of a face, from 0 to 1. Lower it for blurred or turned faces.",
        ),
    ]


def aligned_input() -> io.Input:
    return advanced(
        io.Boolean.Input(
            "aligned",
            default=False,
            optional=True,
            tooltip="Input type: on if the images are already square, aligned crops of one face, such as 112 × 112. "
            "Then no detector runs.",
        )
    )


def face_settings(
    face=RULES[0], number=1, nearest_to=None, min_score=MIN_SCORE, aligned=False, **settings
) -> FaceSettings:
    """The settings that the inputs of `face_choice_inputs` and `aligned_input` say."""
    like = first(nearest_to)
    if like is not None:
        require_embeds(like)
    return FaceSettings(first(face), first(number), like, first(min_score), aligned=first(aligned), **settings)


def _choice_of(provider: str) -> str | None:
    return next((choice for choice, name in PROVIDERS.items() if name == provider), None)
