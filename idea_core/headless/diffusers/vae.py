"""VAEs from disk."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors import SafetensorError
from torch import Tensor

from ...errors import BaseModelError
from ...families.base_models import BASE_MODELS
from .quantised import plain_weights

SCALES = {"sd1": 0.18215, "sd2": 0.18215, "sdxl": 0.13025}
"""Base model → factor from the VAE's latents to the UNet's."""
_FIRST = "encoder.conv_in.weight"


def load_vae(path: Path, family: str, dtype: torch.dtype) -> AutoencoderKL:
    """A VAE's folder or file, for a base model's family.

    Raises:
        BaseModelError: no VAE there.
    """
    if path.is_dir():
        try:
            vae = AutoencoderKL.from_pretrained(path, torch_dtype=dtype, local_files_only=True)
        except (OSError, ValueError, SafetensorError) as error:
            reason = str(error).splitlines()[0]
            raise BaseModelError(f"a VAE in {path}", reason, "Give a VAE's file or folder with --vae.") from None
    elif family not in SCALES:
        raise BaseModelError(f"a VAE's folder for {BASE_MODELS[family].title}", f"the file {path}", "Give a folder.")
    else:
        vae = vae_from(plain_weights(path), family, path.name, dtype)
    if vae.config.latent_channels != 4:
        raise BaseModelError("a VAE of 4 latent channels", str(vae.config.latent_channels), "Choose another VAE.")
    return vae


def vae_from(weights: Mapping[str, Tensor], family: str, name: str, dtype: torch.dtype) -> AutoencoderKL:
    """The VAE among the weights of the file `name`."""
    if not any(key.endswith(_FIRST) for key in weights):
        raise BaseModelError(f"a VAE in {name}", "none", "Give a VAE's file or folder with --vae.")
    parameters = {"first_stage_config": {"params": {"ddconfig": _config(weights)}}, "scale_factor": SCALES[family]}
    config = {"model": {"params": parameters}}
    return AutoencoderKL.from_single_file(dict(weights), original_config=config, torch_dtype=dtype)


def _config(weights: Mapping[str, Tensor]) -> dict:
    """Its sizes in LDM's terms, read off the encoder; they are Stable Diffusion's where names are diffusers'."""
    encoder = next(key for key in weights if key.endswith(_FIRST)).removesuffix("conv_in.weight")
    first = [f"{encoder}down.{level}.block.0.conv1.weight" for level in range(8)]
    widths = [weights[key].shape[0] for key in first if key in weights]
    channels = weights[f"{encoder}conv_in.weight"].shape[0]
    blocks = next(n for n in count() if f"{encoder}down.0.block.{n}.conv1.weight" not in weights)
    return {
        "ch": channels,
        "ch_mult": [width // channels for width in widths] or [1, 2, 4, 4],
        "num_res_blocks": blocks or 2,
        "in_channels": 3,
        "out_ch": 3,
        "z_channels": weights[f"{encoder}conv_out.weight"].shape[0] // 2,
    }
