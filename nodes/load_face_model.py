"""Load Face Model."""

from __future__ import annotations

import logging

from comfy_api.v0_0_2 import io

from ..idea_core.faces import find_packs
from ..idea_core.faces.packs import PROVIDER_CHOICES, PROVIDERS, require_pack
from .comfy.face_models import FaceModels
from .comfy.paths import file_state, insightface_roots
from .common import CATEGORY, SHOWS
from .sockets import FaceModel

logger = logging.getLogger(__name__)


class LoadFaceModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IDEA_LoadFaceModel",
            **SHOWS,
            display_name="Load Face Model",
            category=CATEGORY,
            description="Loads a face detector and an ArcFace recogniser from models/insightface/models. The "
            "models of the insightface project are for non-commercial research only.",
            inputs=[
                io.Combo.Input(
                    "pack",
                    options=list(find_packs(insightface_roots())),
                    tooltip="Face models: a folder of .onnx files in models/insightface/models, such as antelopev2. A"
                    " single recogniser file works only where aligned is on. Nothing is downloaded.",
                ),
                io.Combo.Input(
                    "provider",
                    options=list(PROVIDER_CHOICES),
                    default="auto",
                    tooltip="Hardware that runs the face models. auto: the GPU if the installed onnxruntime supports "
                    "one, else the CPU.",
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
        return "\n".join(map(file_state, files))

    @classmethod
    def execute(cls, pack: str, provider: str) -> io.NodeOutput:
        models = FaceModels(require_pack(pack, insightface_roots()), provider)
        runs = models.engine().providers[0]
        log = logger.info if provider in ("auto", _choice_of(runs)) else logger.warning
        log("ID-EA: face model %s runs on %s (asked for: %s)", pack, runs, provider)
        return io.NodeOutput(models, runs, ui={"text": [f"{pack} runs on {runs}"]})


def _choice_of(provider: str) -> str | None:
    return next((choice for choice, name in PROVIDERS.items() if name == provider), None)
