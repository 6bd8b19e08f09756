"""Small random-weight checkpoints that ComfyUI's own CheckpointLoaderSimple loads as SD 1.5, SD 2.1 and SDXL.

Run with ComfyUI's Python, in ComfyUI's folder:  python tiny_checkpoints.py FOLDER [full]
The UNet has one level and one residual block (SDXL's has Segmind Vega's layout, the least that ComfyUI takes for one),
the VAE is TAESD; the text encoders have full size, since ComfyUI fixes it. With `full`, one checkpoint instead whose
UNet has the size of SD 1.5's, for measuring.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

sys.path.insert(0, str(Path.cwd()))  # ComfyUI before this folder
FOLDER, FULL, sys.argv[1:] = Path(sys.argv[1]), "full" in sys.argv[2:], ["--cpu"]

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.supported_models  # noqa: E402
import comfy.taesd.taesd  # noqa: E402
import safetensors.torch  # noqa: E402
import torch  # noqa: E402

UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "use_spatial_transformer": True,
    "legacy": False,
    "use_checkpoint": False,
    "adm_in_channels": None,
    "use_temporal_attention": False,
    "use_temporal_resblock": False,
    "num_res_blocks": [1],
    "channel_mult": [1],
    "transformer_depth": [1],
    "transformer_depth_output": [1, 1],
    "transformer_depth_middle": 1,
}
FAMILIES = {
    "sd15": (comfy.supported_models.SD15, {"context_dim": 768, "use_linear_in_transformer": False}),
    "sd21": (comfy.supported_models.SD20, {"context_dim": 1024, "use_linear_in_transformer": True}),
    "sdxl": (
        comfy.supported_models.Segmind_Vega,
        {
            "context_dim": 2048,
            "use_linear_in_transformer": True,
            "num_classes": "sequential",
            "adm_in_channels": 2816,
            "num_res_blocks": [2, 2, 2],
            "channel_mult": [1, 1, 1],
            "transformer_depth": [0, 0, 1, 1, 2, 2],
            "transformer_depth_output": [0, 0, 0, 1, 1, 1, 2, 2, 2],
            "transformer_depth_middle": 2,
        },
    ),
}
FULL_SIZE = {
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
}
POOL = 1 << 20
# ComfyUI tells v-prediction from this key's spread; it belongs to a block that the tiny UNet lacks.
V_PREDICTION_MARK = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"


def cheap_randn(shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """Normal numbers; for a large shape the same million over and over, from a place of their own."""
    numbers = torch.Size(shape).numel()
    if numbers <= POOL:
        return torch.randn(shape, generator=generator)
    pool = torch.randn(POOL, generator=generator)
    return pool.repeat(-(-numbers // POOL))[:numbers].view(shape)


def fill(module: torch.nn.Module, generator: torch.Generator, gain: float, draw=torch.randn) -> torch.nn.Module:
    """Random weights of a spread that keeps activations near one."""
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if not tensor.is_floating_point() or name.endswith(("vae_scale", "vae_shift", "logit_scale")):
            continue
        if tensor.ndim < 2:
            tensor.data.fill_(0.0 if name.endswith("bias") else 1.0)
            continue
        scale = 0.02 if "embedding" in name else gain * tensor[0].numel() ** -0.5
        tensor.data.copy_(draw(tensor.shape, generator=generator) * scale)
    return module


def weights(family: str, seed: int = 0, more: dict = {}) -> dict[str, torch.Tensor]:
    """State dict of a checkpoint, in half precision."""
    config_class, unet = FAMILIES[family]
    generator = torch.Generator().manual_seed(seed)
    config = config_class({**UNET, **unet, **more})
    config.set_inference_dtype(torch.float16, None)
    model = config.get_model({}, device="cpu")
    draw = cheap_randn if family == "sdxl" or more else torch.randn
    fill(model.diffusion_model, generator, 1.0, draw if more else torch.randn)
    clip = config.clip_target({}).clip(dtype=torch.float16, device="cpu")
    text = fill(clip, generator, 0.5, draw)
    vae = fill(comfy.taesd.taesd.TAESD(), generator, 0.9)
    parts = {"clip_state_dict": text.state_dict(), "vae_state_dict": vae.state_dict()}
    if "unet_state_dict" in inspect.signature(model.state_dict_for_saving).parameters:  # newer
        parts["unet_state_dict"] = model.diffusion_model.state_dict()
    state = model.state_dict_for_saving(**parts)
    return {key: tensor.contiguous().clone() for key, tensor in state.items()}


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    if FULL:
        safetensors.torch.save_file(weights("sd15", more=FULL_SIZE), FOLDER / "full_sd15.safetensors")
    for name in () if FULL else FAMILIES:
        state = weights(name)
        safetensors.torch.save_file(state, FOLDER / f"tiny_{name}.safetensors")
        if name == "sd21":
            state[V_PREDICTION_MARK] = torch.tensor([-1.0, 1.0])
            safetensors.torch.save_file(state, FOLDER / "tiny_sd21_v.safetensors")
