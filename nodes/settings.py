"""ID-EA Training Settings: every value of a training, for those who want another than a preset's."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from comfy_api.v0_0_2 import io

from ..idea_core.diffusion.backbone import PRECISION_CHOICES
from ..idea_core.text.captions import CAPTIONS, captions_of
from ..idea_core.training.config import PRESETS, REGULARIZERS, STARTS, TrainConfig
from .faces import CATEGORY
from .inputs import advanced, float_input, int_input
from .sockets import SettingsSocket

_DEFAULTS = TrainConfig()
_UNSET = -1  # widgets hold no None
_CONFIGURED = {field.name for field in dataclasses.fields(TrainConfig)}


@dataclass(frozen=True)
class TrainingSettings:
    """How a person is trained in ComfyUI.

    Attributes:
        captions: one of `CAPTIONS`.
        precision: one of `PRECISION_CHOICES`.
        gradient_checkpointing: from the first step on; else only after memory has run out.
        save_every: steps between two saves of a training that is under way; 0: only when it is cancelled.
    """

    config: TrainConfig = _DEFAULTS
    captions: str = "photo"
    precision: str = "auto"
    gradient_checkpointing: bool = False
    save_every: int = 100

    @classmethod
    def of_preset(cls, name: str) -> TrainingSettings:
        return cls(PRESETS[name], captions=captions_of(name))


class TrainingSettingsNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="IDEA_TrainingSettings",
            display_name="ID-EA Training Settings",
            category=CATEGORY,
            description="Every value of a training, for ID-Enhancer Train in place of its preset. They start as the "
            "preset fast has them.",
            inputs=[
                _int("steps", 1, 10000, "More steps give more likeness; too many, and prompts are obeyed less."),
                _int("batch_size", 1, 64, "Photos per step. It is split up by itself where memory runs out."),
                io.Combo.Input(
                    "start",
                    options=list(STARTS),
                    default=_DEFAULTS.start,
                    tooltip="Where the person's word starts. names: between the names of famous people, along whose "
                    "differences it moves, which is quicker. cross: at the cross initialisation, moving freely, as "
                    "published.",
                ),
                _number("axes_lr", "Learning rate of a word with start = names.", 10.0),
                _rate("token_lr", "Learning rate of a word with start = cross, or with fewer than 32 names."),
                _rate(
                    "adapter_lr",
                    "Learning rate of ID-Enhancer and ID-Adapter; 0 leaves both out, unless enhancer_lr is above 0.",
                ),
                _rate("kv_lr", "Learning rate of the cross attentions' keys and values; 0 leaves them alone."),
                io.Int.Input(
                    "kv_rank",
                    default=_UNSET,
                    min=_UNSET,
                    max=128,
                    tooltip="Rank of the change to keys and values; -1: 8, and 2 for SDXL. 0: whole matrices; lower "
                    "kv_lr.",
                ),
                _number(
                    "gate_init",
                    "How far ID-Adapter's gate stands open at the start. At 0, as published, it hardly learns.",
                    10.0,
                ),
                _number("flip_p", "Probability of a mirrored photo. 0 for faces with a mark on one side.", 1.0),
                io.Combo.Input(
                    "captions",
                    options=list(CAPTIONS),
                    tooltip="What photos are called in training. photo: a photo; paper: also an illustration and a "
                    "depiction.",
                ),
                advanced(
                    _int("axes", 1, 2048, "How many directions each token may move in, at most, with start = names.")
                ),
                advanced(_int("num_tokens", 1, 8, "Tokens that stand for the person in a prompt.")),
                advanced(_int("heads", 1, 32, "Attention heads of ID-Enhancer and ID-Adapter.")),
                advanced(_number("beta", "Scale of ID-Adapter's gate.", 10.0)),
                advanced(
                    io.Combo.Input(
                        "regularizer",
                        options=list(REGULARIZERS),
                        default=_DEFAULTS.regularizer,
                        tooltip="What holds the person's word to its starting point. mahalanobis: distance by the "
                        "spread of the starting point, as published; names: by that of all names; l2: plain distance.",
                    )
                ),
                advanced(
                    _rate(
                        "regularizer_weight",
                        "How strongly. The published 0.0008 holds the word nearly still; 0 lets it go.",
                    )
                ),
                advanced(
                    _rate(
                        "zeta",
                        "Smoothing of the spread in the regularizer; smaller holds tighter.",
                        least=1e-8,
                        step=1e-6,
                    )
                ),
                advanced(
                    io.Boolean.Input(
                        "sample_latents",
                        default=_DEFAULTS.sample_latents,
                        tooltip="Draw a photo's latents anew at each step from what the VAE makes of it, as published.",
                    )
                ),
                advanced(
                    io.Float.Input(
                        "enhancer_lr",
                        default=float(_UNSET),
                        min=float(_UNSET),
                        max=1.0,
                        step=1e-5,
                        round=False,
                        tooltip="Learning rate of ID-Enhancer; -1: ID-Adapter's.",
                    )
                ),
                advanced(_rate("weight_decay", "AdamW's weight decay.")),
                advanced(_rate("adam_epsilon", "AdamW's epsilon.", least=1e-12, step=1e-8)),
                io.Combo.Input(
                    "precision",
                    options=list(PRECISION_CHOICES),
                    tooltip="In which the UNet computes; auto: half on a GPU. What is trained is always in fp32.",
                ),
                io.Boolean.Input(
                    "gradient_checkpointing",
                    default=False,
                    tooltip="Less memory, slower steps. It comes on by itself where memory runs out.",
                ),
                io.Int.Input(
                    "save_every",
                    default=TrainingSettings.save_every,
                    min=0,
                    max=10000,
                    tooltip="Steps between two saves of a training under way, which then goes on after a crash. 0: "
                    "only when it is cancelled.",
                ),
                _number(
                    "likeness_weight",
                    "How much likeness itself counts: at each step the person is drawn, and the face compared with the "
                    "photos'. It needs a FACE_MODEL at ID-Enhancer Train, and eight to twenty times as long a step. 0: "
                    "not.",
                    10.0,
                ),
                advanced(_int("likeness_images", 1, 64, "Pictures drawn at each step for likeness_weight.")),
                advanced(_int("likeness_sampling_steps", 1, 50, "Sampling steps of each of these pictures.")),
                advanced(_number("likeness_guidance", "Guidance (cfg) of these pictures.", 30.0)),
                _number(
                    "swa_fraction",
                    "Share of the steps, the last ones, whose mean the person is: steadier than what the last step "
                    "happens to leave. 0: the last step.",
                    1.0,
                ),
            ],
            outputs=[SettingsSocket.Output("settings", display_name="SETTINGS", tooltip="For ID-Enhancer Train.")],
        )

    @classmethod
    def execute(cls, **values) -> io.NodeOutput:
        for name in ("enhancer_lr", "kv_rank"):  # None: the adapter's, the base model's
            if values.get(name) == _UNSET:
                values[name] = None
        config = TrainConfig(**{key: values.pop(key) for key in values.keys() & _CONFIGURED})
        return io.NodeOutput(TrainingSettings(config, **values))


def _int(name: str, least: int, most: int, tooltip: str) -> io.Int.Input:
    return int_input(name, getattr(_DEFAULTS, name), least, most, tooltip)


def _rate(name: str, tooltip: str, least: float = 0.0, step: float = 1e-5) -> io.Float.Input:
    default = getattr(_DEFAULTS, name)
    return io.Float.Input(name, default=default, min=least, max=1.0, step=step, round=False, tooltip=tooltip)


def _number(name: str, tooltip: str, most: float) -> io.Float.Input:
    return float_input(name, getattr(_DEFAULTS, name), 0.0, most, tooltip)
