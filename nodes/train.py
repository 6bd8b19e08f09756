"""ID-Enhancer Train."""

from __future__ import annotations

import dataclasses

import comfy.utils
import torch
from comfy_api.v0_0_2 import io, ui
from torch import Tensor

from ..idea_core.enhancers.pretrained import PretrainedEnhancer
from ..idea_core.errors import ConfigError, TrainingError
from ..idea_core.faces.photos import bucket_of
from ..idea_core.identity.checks import require_name
from ..idea_core.method.anchor import parse_names
from ..idea_core.settings import settings_of
from ..idea_core.training.batches import Photos
from ..idea_core.training.config import PRESETS, TrainConfig
from ..idea_core.training.preview import PROMPT, PreviewConfig, WatchConfig
from .comfy.images import require_images
from .comfy.loss_curve import draw_losses
from .comfy.models import require_pair, require_vae
from .common import (
    SHOWS,
    EnhancerSocket,
    IdEmbedsSocket,
    IdentitySocket,
    SettingsSocket,
    described,
    output,
    require,
    require_embeds,
    schema,
)
from .inputs import advanced, base_model_inputs, face_model_input, name_input, require_finite, widgets_of
from .settings import TrainingSettings
from .training_job import TrainingJob

PREVIEWS = 2  # images of each preview
UNMARKED = 0.2  # loss weight where a mask is black: hair and shoulders belong to the person too


class EnhancerTrain(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        target = settings_of(WatchConfig)["target"]
        return schema(
            node_id="IDEA_EnhancerTrain",
            **SHOWS,
            display_name="ID-Enhancer Train",
            description="Trains a person for this checkpoint from a few photos. The result is saved in "
            "output/idea/autosave. The same inputs are never trained twice, and a cancelled training continues "
            "where it stopped.",
            inputs=[
                *base_model_inputs(
                    "Experimental, face similarity not measured: FLUX.1, FLUX.2 Klein 4B, Z-Image, Chroma. "
                ),
                IdEmbedsSocket.Input("id_embeds", tooltip="Face embeddings of the person, from ID Encode."),
                io.Image.Input("images", tooltip="Photos to train on: the face crops of ID Encode."),
                name_input(),
                io.Combo.Input(
                    "preset",
                    options=list(PRESETS),
                    default="fast",
                    tooltip="Training length. fast: seconds. standard: better likeness. thorough: 320 steps, if "
                    "standard is not enough. likeness: also optimises face similarity (needs FACE_MODEL; 10× slower, "
                    "SDXL 20×). paper: published settings.",
                ),
                *widgets_of(
                    TrainConfig,
                    "steps",
                    "seed",
                    steps={"default": 0, "tooltip": "Optimiser steps. 0: those of the preset or the settings."},
                ),
                io.Int.Input(
                    "resolution",
                    default=512,
                    min=64,
                    max=1024,
                    step=64,
                    tooltip="Size in pixels to which the photos are cropped and scaled: 512 for most models, 768 for "
                    "SD 2.1 768-v, 1024 for SDXL.",
                ),
                *advanced(
                    io.Boolean.Input(
                        "keep_shape",
                        default=False,
                        tooltip="Shape of the photos: on keeps about their own shape, off crops the middle square.",
                    )
                ),
                *widgets_of(WatchConfig, "every", every={"id": "preview_every", "default": 25}),
                *advanced(
                    io.String.Input(
                        "preview_prompt",
                        default=PROMPT,
                        tooltip="Prompt of the previews. Two curly brackets, as in the default, stand for the person.",
                    )
                ),
                *widgets_of(
                    WatchConfig,
                    "target",
                    target={"id": "until_likeness", "default": 0.0, "min": 0.0, "tooltip": f"{target.help} 0: never."},
                ),
                *advanced(
                    io.String.Input(
                        "notes",
                        default="",
                        multiline=True,
                        optional=True,
                        tooltip="Descriptions of what else the photos show, one line per photo: 'wearing a red hat, on "
                        "a beach'. What is described is not learned as part of the person.",
                    ),
                    io.String.Input(
                        "names",
                        default="",
                        multiline=True,
                        optional=True,
                        tooltip="Names of famous people, one per line, or a phrase such as 'human face'. The training "
                        "starts at their mean. Empty: the list of the pack.",
                    ),
                ),
                io.Mask.Input(
                    "masks",
                    optional=True,
                    tooltip="Masks of what matters in the photos, such as the face masks of ID Encode. Black counts a "
                    "fifth of white.",
                ),
                EnhancerSocket.Input(
                    "enhancer",
                    optional=True,
                    tooltip="ID-Enhancer from Load ID-Enhancer. The training starts at its answer for the face.",
                ),
                SettingsSocket.Input(
                    "settings", optional=True, tooltip="Settings from ID-EA Training Settings. They replace the preset."
                ),
                face_model_input(
                    "Face models that measure the similarity of the previews. The preset likeness needs them.",
                    optional=True,
                ),
            ],
            outputs=[
                output(IdentitySocket, "IDENTITY", "Person for Save ID-EA Embedding and Apply ID-Adapter."),
                output(io.Image, "loss_curve", "Chart of the loss of each step, and its running mean."),
                output(io.String, "report", "Text: settings, speed, memory, losses and face similarity."),
                output(io.LossMap, "LOSS_MAP", "Losses for the loss graph of ComfyUI."),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, model, clip, vae, id_embeds, images, name, names="", enhancer=None, face_model=None, **values
    ) -> io.NodeOutput:
        require_embeds(id_embeds)
        require_vae(vae, require_pair(model, clip, trainable=True))
        require(enhancer, PretrainedEnhancer | None, EnhancerSocket, "Load ID-Enhancer")
        settings, watch = _settings(enhancer, **values), _watch(**values)
        if watch.target and face_model is None:
            raise ConfigError("a FACE_MODEL to measure likeness", "none", "Connect Load Face Model.")
        if settings.config.likeness_weight and face_model is None:
            raise ConfigError("a FACE_MODEL to train for likeness", "none", "Connect Load Face Model.")
        photos = _photos(images, **values)
        job = TrainingJob(
            require_name(name), photos, id_embeds, parse_names(names), settings, enhancer, watch, face_model
        )
        identity, image = job.run(model, clip, vae, cls.hidden.prompt, cls.hidden.unique_id)
        losses = identity.training["losses"]
        return io.NodeOutput(
            identity,
            draw_losses(losses),
            described(identity.training),
            {"loss": [torch.tensor(loss) for loss in losses]},
            ui=None if image is None else ui.PreviewImage(image, cls=cls),
        )


def _settings(
    enhancer: PretrainedEnhancer | None, *, preset: str, steps: int, seed: int, settings=None, **_others
) -> TrainingSettings:
    """The settings that are connected, or the preset's, with the node's own steps and seed."""
    if settings is None:
        settings = TrainingSettings.of_preset(preset)
    require(settings, TrainingSettings, SettingsSocket, "ID-EA Training Settings")
    config = dataclasses.replace(settings.config, steps=steps or settings.config.steps, seed=seed)
    return dataclasses.replace(settings, config=enhancer.configure(config) if enhancer else config)


def _watch(
    *, preview_every: int = 0, preview_prompt: str = PROMPT, until_likeness: float = 0.0, **_others
) -> WatchConfig:
    require_finite(until_likeness=until_likeness)
    preview = PreviewConfig((preview_prompt,), tuple(range(PREVIEWS)))
    return WatchConfig(preview_every, preview, until_likeness or None)


def _photos(
    images: Tensor,
    *,
    resolution: int,
    keep_shape: bool = False,
    notes: str = "",
    masks: Tensor | None = None,
    **_others,
) -> Photos:
    """Photos (P, H, W, C) at the training's size, with their notes and masks."""
    require_images(images)
    if images.ndim != 4 or 0 in images.shape:
        raise TrainingError("photos with pixels", f"shape {tuple(images.shape)}", "Connect ID Encode's face crops.")
    lines = notes.removesuffix("\n").split("\n") if notes.strip() else []
    if lines and len(lines) != len(images):
        raise ConfigError(f"a line of notes for each of the {len(images)} photos", str(len(lines)), "Change notes.")
    size = bucket_of(images.shape[2], images.shape[1], resolution) if keep_shape else (resolution, resolution)
    if masks is not None:
        require(masks, Tensor, io.Mask, "ID Encode")
        if len(masks) not in (1, len(images)) or masks.shape[1:] != images.shape[1:3]:
            got = " × ".join(map(str, masks.shape))
            raise ConfigError("masks of the photos' number and size", got, "Connect the photos' own masks.")
        masks = _fitted(masks[..., None].expand(len(images), -1, -1, -1), size, "bilinear")[..., 0]
        masks = UNMARKED + (1 - UNMARKED) * masks.clamp(0, 1)
    return Photos(_fitted(images[..., :3], size), tuple(line.strip() for line in lines), masks)


def _fitted(images: Tensor, size: tuple[int, int], method: str = "lanczos") -> Tensor:
    """The middle of images (P, H, W, C), cropped and scaled to a size (width, height)."""
    return comfy.utils.common_upscale(images.movedim(-1, 1), *size, method, "center").movedim(1, -1).contiguous()
