"""Load Face Model."""

from __future__ import annotations

import logging

from comfy_api.v0_0_2 import io

from ..idea_core.faces import find_packs
from ..idea_core.faces.packs import PROVIDER_CHOICES, PROVIDERS, require_pack
from .comfy.face_models import FaceModels
from .comfy.paths import file_state, insightface_roots
from .common import SHOWS, FaceModel, output, schema

logger = logging.getLogger(__name__)


class LoadFaceModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="IDEA_LoadFaceModel",
            **SHOWS,
            display_name="Load Face Model",
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
                output(
                    FaceModel,
                    "FACE_MODEL",
                    "Face models for ID Encode, ID Similarity, Refined ID-EA Embedding and the training nodes.",
                ),
                output(io.String, "runs_on", "Name of the onnxruntime provider in use."),
            ],
        )

    @classmethod
    def validate_inputs(cls, pack) -> bool:
        return True  # execute's error says what to do; the front end hides an error from here behind more clicks

    @classmethod
    def fingerprint_inputs(cls, pack, provider) -> str:
        """A replaced or missing file makes the node run again."""
        files = packs[pack].files() if pack in (packs := find_packs(insightface_roots())) else ()
        return "\n".join(map(file_state, files))

    @classmethod
    def execute(cls, pack: str, provider: str) -> io.NodeOutput:
        models = FaceModels(require_pack(pack, insightface_roots()), provider)
        runs_on = models.engine().providers[0]
        log = logger.info if provider == "auto" or PROVIDERS.get(provider) == runs_on else logger.warning
        log("ID-EA: face model %s runs on %s (asked for: %s)", pack, runs_on, provider)
        return io.NodeOutput(models, runs_on, ui={"text": [f"{pack} runs on {runs_on}"]})
