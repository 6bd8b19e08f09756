"""VAEs from disk."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from safetensors import SafetensorError
from torch import Tensor

from ...errors import BaseModelError
from ...families import BASE_MODELS
from ...families.base_model import Checkpoint
from .quantised import plain_weights

_FIRST = "encoder.conv_in.weight"


def load_vae(path: Path, family: str, dtype: torch.dtype) -> AutoencoderKL:
    """The VAE of a folder or file, for a base model.

    Args:
        family: key in `BASE_MODELS`.

    Raises:
        BaseModelError: no VAE, or one with other latent channels.
    """
    base = BASE_MODELS[family]
    if base.vae != AutoencoderKL.__name__:
        raise BaseModelError(f"no VAE beside {base.title}'s own", str(path), "Leave --vae out.")
    if path.is_dir():
        try:
            vae = AutoencoderKL.from_pretrained(path, torch_dtype=dtype, local_files_only=True)
        except (OSError, ValueError, SafetensorError) as error:
            reason = str(error).splitlines()[0]
            raise BaseModelError(f"a VAE in {path}", reason, "Give a VAE's file or folder with --vae.") from None
    elif base.checkpoint is None:
        raise BaseModelError(f"a VAE's folder for {base.title}", f"the file {path}", "Give a folder.")
    else:
        vae = vae_from(plain_weights(path), base.checkpoint, path.name, dtype)
    if vae.config.latent_channels != base.latent_channels:
        got = str(vae.config.latent_channels)
        raise BaseModelError(f"a VAE of {base.latent_channels} latent channels", got, "Choose another VAE.")
    return vae


def vae_from(weights: Mapping[str, Tensor], layout: Checkpoint, name: str, dtype: torch.dtype) -> AutoencoderKL:
    """The VAE among the weights of the file `name`."""
    if not any(key.endswith(_FIRST) for key in weights):
        raise BaseModelError(f"a VAE in {name}", "none", "Give a VAE's file or folder with --vae.")
    stage = {"params": {"ddconfig": _config(weights)}}
    config = {"model": {"params": {"first_stage_config": stage, "scale_factor": layout.latent_scale}}}
    return AutoencoderKL.from_single_file(dict(weights), original_config=config, torch_dtype=dtype)


def _config(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Sizes in LDM's terms, inferred from the encoder; with diffusers' names they are Stable Diffusion's."""
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
