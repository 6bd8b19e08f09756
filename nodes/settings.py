"""ID-EA Training Settings: every setting of a training, in place of a preset."""

from __future__ import annotations

from dataclasses import dataclass

from comfy_api.v0_0_2 import io

from ..idea_core.diffusion.backbone import PRECISION_CHOICES
from ..idea_core.settings import Settings, setting
from ..idea_core.text.captions import CAPTIONS, captions_of
from ..idea_core.training.config import PRESETS, TrainConfig
from .common import SettingsSocket, output, schema
from .inputs import configured, widgets_of

LATER = ("space", "kv_scope", "adapter_width")
"""Settings whose widgets came later: saved workflows hold widgets' values by their place."""


@dataclass(frozen=True)
class TrainingSettings(Settings):
    """How a person is trained in ComfyUI."""

    config: TrainConfig = TrainConfig()
    captions: str = setting(
        "photo",
        "Captions of the photos in training. photo: a photo. paper: also an illustration and a depiction.",
        choices=tuple(CAPTIONS),
    )
    precision: str = setting(
        "auto",
        "Precision of the UNet. auto: half precision on a GPU. Trained weights are always in fp32.",
        choices=PRECISION_CHOICES,
    )
    gradient_checkpointing: bool = setting(
        False, "Use less memory; steps are slower. It turns on by itself where memory runs out."
    )
    save_every: int = setting(
        100,
        "Steps between two saves of a running training, so that it survives a crash. 0: only when it is cancelled.",
        min=0,
        soft_max=10_000,
    )

    @classmethod
    def of_preset(cls, name: str) -> TrainingSettings:
        return cls(PRESETS[name], captions=captions_of(name))


class TrainingSettingsNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="IDEA_TrainingSettings",
            display_name="ID-EA Training Settings",
            description="Every setting of a training. It replaces the preset of ID-Enhancer Train. The defaults are "
            "those of the preset fast.",
            inputs=[
                *widgets_of(TrainConfig, seed=None, steps={"min": 1}, **dict.fromkeys(LATER)),
                *widgets_of(TrainingSettings),
                *widgets_of(TrainConfig, *LATER),
            ],
            outputs=[output(SettingsSocket, "SETTINGS", "Settings for ID-Enhancer Train.")],
        )

    @classmethod
    def execute(cls, **values) -> io.NodeOutput:
        return io.NodeOutput(configured(TrainingSettings, values, config=configured(TrainConfig, values)))
