"""The layouts of published checkpoints, as ComfyUI writes them: names and shapes, without weights."""

from __future__ import annotations

import comfy.ops
import comfy.supported_models
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

# Where ComfyUI's own configurations of the families leave these open, as in the published checkpoints.
UNET = {"image_size": 32, "in_channels": 4, "out_channels": 4, "legacy": False, "num_res_blocks": [2, 2, 2, 2]}
UNET |= {"channel_mult": [1, 2, 4, 4], "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_middle": 1}
UNET |= {"transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0]}
SDXL = {"num_res_blocks": [2, 2, 2], "channel_mult": [1, 2, 4], "transformer_depth": [0, 0, 2, 2, 10, 10]}
SDXL |= {"transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10], "transformer_depth_middle": 10}
SDXL |= {"num_classes": "sequential"}
FAMILIES = {
    "sd1": (comfy.supported_models.SD15, {}),
    "sd2": (comfy.supported_models.SD20, {}),
    "sdxl": (comfy.supported_models.SDXL, SDXL),
}


def unet_layout(family: str) -> dict[str, list[int]]:
    """Key in a checkpoint's file → shape, for the whole UNet of a family."""
    config, changes = FAMILIES[family]
    settings = {**UNET, **config.unet_config, **changes, "model_channels": 320, "use_spatial_transformer": True}
    settings = {**settings, **config.unet_extra_config}
    if family != "sdxl":
        settings["adm_in_channels"] = None
    known = {key: value for key, value in settings.items() if key != "use_temporal_attention"}
    with torch.device("meta"):
        unet = UNetModel(**known, operations=comfy.ops.disable_weight_init, device="meta")
    return {f"model.diffusion_model.{key}": list(tensor.shape) for key, tensor in unet.state_dict().items()}
