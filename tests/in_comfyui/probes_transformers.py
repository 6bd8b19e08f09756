"""FLUX and Z-Image in ComfyUI's process: tiny models by the stock loaders' functions, and a sampler's single call."""

from __future__ import annotations

from functools import lru_cache

import comfy.samplers
import comfy.sd
import folder_paths
import torch
from tiny_transformers import FILES, encoders_of

import nodes

CLIP_TYPES = {"flux1": "FLUX", "klein4b": "FLUX2", "zimage": "LUMINA2", "chroma": "CHROMA"}


@lru_cache(1)  # Z-Image takes 6 GiB
def load_transformer(family: str):
    """MODEL, CLIP and VAE as UNETLoader, CLIPLoader and VAELoader give them, text encoders at little depth."""
    network, encoders, vae = FILES[family]
    with torch.inference_mode():
        (model,) = nodes.UNETLoader().load_unet(network, "default")
        paths = [folder_paths.get_full_path_or_raise("text_encoders", name) for name in encoders]
        kind = comfy.sd.CLIPType[CLIP_TYPES[family]]
        clip = comfy.sd.load_clip(paths, clip_type=kind, model_options=encoders_of(family))
        return model, clip, nodes.VAELoader().load_vae(vae)[0]


class _Once(comfy.samplers.Sampler):
    """Calls the guider's model once, at one noise level."""

    def __init__(self, noisy: torch.Tensor):
        self.noisy = noisy

    def sample(self, model_wrap, sigmas, extra_args, *_others, **_more):
        self.seen = model_wrap(self.noisy.clone(), sigmas[:1], **extra_args)
        return self.seen


def denoised(model, positive: list, noisy: torch.Tensor, sigma: float) -> torch.Tensor:
    """The image (1, c, h, w) that ComfyUI's sampling sees behind `noisy`, without guidance."""
    guider, once = comfy.samplers.CFGGuider(model), _Once(noisy)
    guider.set_conds(positive, [])
    guider.set_cfg(1.0)
    zeros = torch.zeros_like(noisy)
    guider.sample(zeros, zeros, once, torch.tensor([sigma, 0.0]), disable_pbar=True)
    return once.seen
