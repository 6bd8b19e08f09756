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
            "insightface's own models are for non-commercial research only.",
            inputs=[
                io.Combo.Input(
                    "pack",
                    options=list(find_packs(insightface_roots())),
                    tooltip="A folder of .onnx files in models/insightface/models, such as antelopev2 or buffalo_l, "
                    "or a recogniser's .onnx file there, which needs aligned switched on where faces are read. "
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
                FaceModel.Output(
                    "face_model",
                    display_name="FACE_MODEL",
                    tooltip="For ID Encode, ID Similarity, Refined ID-EA Embedding, and trainings.",
                ),
                io.String.Output(
                    "runs_on", display_name="runs_on", tooltip="The provider that runs, whatever was asked for."
                ),
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
            description="Finds the person's face in each photo and averages the ArcFace embeddings.",
            is_input_list=True,
            inputs=[
                face_model_input(),
                io.Image.Input("images", tooltip="One or more photos of one person; a list may have any sizes."),
                more_images_input("More photos of the person, of any size."),
                *face_choice_inputs(),
                io.Combo.Input(
                    "no_face",
                    options=[ERROR, SKIP],
                    default=ERROR,
                    optional=True,
                    tooltip="What to do with a photo without such a face: stop and name it, or go on without it.",
                ),
                io.Combo.Input(
                    "outliers",
                    options=[KEEP, LEAVE_OUT],
                    default=KEEP,
                    optional=True,
                    tooltip="Photos that look like another person than most of the others. "
                    "The report names them either way.",
                ),
                io.Int.Input(
                    "crop_size",
                    default=512,
                    min=64,
                    max=2048,
                    step=64,
                    optional=True,
                    tooltip="Side of the crops in pixels: 512 for SD 1.x and 2.x, 768 for SD 2.1 768-v, 1024 for SDXL.",
                ),
                advanced(
                    io.Float.Input(
                        "crop_margin",
                        default=MARGIN,
                        min=1.0,
                        max=5.0,
                        step=0.1,
                        optional=True,
                        tooltip="Side of the crops in face sizes. 2 keeps hair, ears and shoulders.",
                    )
                ),
                advanced(
                    io.Boolean.Input(
                        "upright",
                        default=True,
                        optional=True,
                        tooltip="Turn the crops so that the eyes are level.",
                    )
                ),
                aligned_input(),
            ],
            outputs=[
                IdEmbedsSocket.Output(
                    "id_embeds",
                    display_name="ID_EMBEDS",
                    tooltip="The person's face, for ID-Enhancer Train, Instant and Refined ID-EA Embedding, and ID "
                    "Similarity.",
                ),
                io.Image.Output(
                    "crops", display_name="face_crops", tooltip="Square crops around each face, to train on."
                ),
                io.Image.Output(
                    "preview",
                    display_name="preview",
                    tooltip="The photos with every face found, numbered from left to right; green was taken.",
                ),
                io.Mask.Output("masks", display_name="face_masks", tooltip="Where the face is in each crop."),
                io.String.Output(
                    "report",
                    display_name="report",
                    tooltip="For each photo the face taken, its score and its likeness to the mean of all.",
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
    tooltip: str = "From Load Face Model, or another pack's FACEANALYSIS or INSIGHTFACE.", optional: bool = False
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
            tooltip="Which face of several: by size, detection score or place, by its number from left to right, "
            "or the one most like nearest_to.",
        ),
        io.Int.Input(
            "number",
            default=1,
            min=1,
            max=99,
            optional=True,
            tooltip="For face = by number: the face's number, counted from left to right.",
        ),
        IdEmbedsSocket.Input("nearest_to", optional=True, tooltip="For face = nearest: whose face is looked for."),
        io.Float.Input(
            "min_score",
            default=MIN_SCORE,
            min=0.05,
            max=0.95,
            step=0.05,
            optional=True,
            tooltip="Faces that the detector is less certain of do not count. Lower it for blurred or turned faces.",
        ),
    ]


def aligned_input() -> io.Input:
    return advanced(
        io.Boolean.Input(
            "aligned",
            default=False,
            optional=True,
            tooltip="The images are square, aligned crops of one face already, such as 112 × 112: use no detector.",
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
