"""What stock nodes draw with a checkpoint, for a check elsewhere."""

from __future__ import annotations

import torch
from safetensors.torch import save_file

import nodes


@torch.inference_mode()
def draw_with_stock_nodes(checkpoint: str, prompt: str, size: int, steps: int, guidance: float, target: str) -> None:
    """Load Checkpoint, KSampler (Euler) and VAE Decode; noise, text, image, and the image's latents go into a file."""
    model, clip, vae = nodes.CheckpointLoaderSimple().load_checkpoint(checkpoint)
    wanted, unwanted = (nodes.CLIPTextEncode().encode(clip, text)[0] for text in (prompt, ""))
    (empty,) = nodes.EmptyLatentImage().generate(size, size)
    (drawn,) = nodes.KSampler().sample(model, 3, steps, guidance, "euler", "normal", wanted, unwanted, empty)
    (image,) = nodes.VAEDecode().decode(vae, drawn)
    (again,) = nodes.VAEEncode().encode(vae, image)
    noise = torch.randn(1, 4, size // 8, size // 8, generator=torch.manual_seed(3))
    seen = {"noise": noise, "text": wanted[0][0], "image": image, "latents": again["samples"]}
    save_file({key: tensor.float().cpu().contiguous() for key, tensor in seen.items()}, target)
