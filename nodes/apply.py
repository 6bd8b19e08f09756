"""Apply ID-Adapter."""

from __future__ import annotations

import logging
from functools import partial

from comfy_api.v0_0_2 import io

from ..idea_core.errors import BaseModelError
from ..idea_core.identity.identity import Identity
from .comfy.models import described_prediction, require_pair
from .comfy.names import AppliedPerson
from .comfy.notices import running_node
from .comfy.patch import AdapterSchedule, patch_model
from .comfy.text import patch_clip
from .common import IdentitySocket, output, require, schema
from .inputs import advanced, require_finite

logger = logging.getLogger(__name__)

WITH_PERSON, ALL_PROMPTS, WHOLE_MODEL = "prompts with the person", "all prompts", "whole model"
_strength_input = partial(io.Float.Input, default=1.0, min=-2.0, max=2.0, step=0.05)
_share_input = partial(io.Float.Input, min=0.0, max=1.0, step=0.01)


class ApplyAdapter(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="IDEA_ApplyAdapter",
            display_name="Apply ID-Adapter",
            description="Adds a person to MODEL and CLIP. Write the name in the prompt in angle brackets: "
            "'photo of <alice> as an astronaut'. Use this node's CLIP for the prompts and its MODEL for the sampler.",
            inputs=[
                io.Model.Input("model", tooltip="MODEL of the base model family that the person was trained on."),
                io.Clip.Input("clip", tooltip="CLIP of the same checkpoint."),
                IdentitySocket.Input(
                    "identity", tooltip="Person to add: loaded, trained, instant, refined, blended or edited."
                ),
                _strength_input(
                    "strength",
                    tooltip="Strength of the adapter on prompts with the name (see branch). If both strengths are 0, "
                    "the node does nothing and the name is plain text.",
                ),
                _strength_input(
                    "kv_strength",
                    tooltip="Strength of the person's change to the cross attention, like a LoRA strength (see "
                    "kv_scope). Lower it if images look too much like the training photos.",
                ),
                _share_input(
                    "start_percent",
                    default=0.0,
                    tooltip="Start of the adapter, as a share of the sampling: 0 is the first step.",
                ),
                _share_input(
                    "end_percent",
                    default=1.0,
                    tooltip="End of the adapter, as a share of the sampling: 1 is the last step.",
                ),
                *advanced(
                    io.Combo.Input(
                        "branch",
                        options=[WITH_PERSON, ALL_PROMPTS],
                        default=WITH_PERSON,
                        optional=True,
                        tooltip="Prompts that the adapter changes: only those with the name, or all prompts of this "
                        "node's CLIP, negative prompts too.",
                    ),
                    io.Combo.Input(
                        "kv_scope",
                        options=[WHOLE_MODEL, WITH_PERSON],
                        default=WHOLE_MODEL,
                        optional=True,
                        tooltip="Scope of the change to the cross attention: all prompts (no cost), or only prompts "
                        "with the name, for two people in separate regions.",
                    ),
                ),
            ],
            outputs=[
                output(io.Model, "MODEL", "MODEL for the sampler."),
                output(io.Clip, "CLIP", "CLIP for the prompts with the name."),
            ],
        )

    @classmethod
    def execute(
        cls, model, clip, identity: Identity, strength, kv_strength, start_percent, end_percent, **optional
    ) -> io.NodeOutput:
        require(identity, Identity, IdentitySocket, "Load ID-EA Embedding")
        require_finite(strength=strength, kv_strength=kv_strength, start_percent=start_percent, end_percent=end_percent)
        _require_fit(model, clip, identity)
        if strength == 0 and kv_strength == 0:
            return io.NodeOutput(model, clip)
        schedule = AdapterSchedule(
            f"idea_{identity.digest()[:16]}",
            identity.trigger,
            strength,
            start_percent,
            end_percent,
            scope=_scope(identity, optional.get("kv_scope") == WITH_PERSON) if kv_strength != 0 else "",
            node_id=running_node(),
        )
        person = AppliedPerson(identity, schedule.key, strength, optional.get("branch") == ALL_PROMPTS, schedule.seen)
        return io.NodeOutput(patch_model(model, identity, schedule, kv_strength), patch_clip(clip, person))


def _scope(identity: Identity, with_person: bool) -> str:
    """Scope of the K/V deltas, as in `AdapterSchedule`: that of the training, or the one that the user says."""
    if not identity.kv:
        return ""
    if identity.kv_scope != "whole":
        return identity.kv_scope
    return "prompt" if with_person else ""


def _require_fit(model, clip, identity: Identity) -> None:
    base_model = require_pair(model, clip)
    if base_model != identity.base_model:
        raise BaseModelError(
            f"a MODEL and CLIP of {identity.base.title}, on which {identity.trigger} was trained",
            base_model,
            f"Load {identity.base_checkpoint or 'a checkpoint of that family'}, or train the person on this one.",
        )
    prediction = described_prediction(model)
    if prediction != identity.prediction:
        logger.warning(
            "ID-EA: %s was trained on a model that predicts %s, this one predicts %s.",
            identity.trigger,
            identity.prediction,
            prediction,
        )
