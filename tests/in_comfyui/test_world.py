"""The world's base model, widened, in stock ComfyUI."""

import pytest
import torch
from safetensors.torch import load_file
from small_world import small_pipeline

from world3d.widening.checkpoint import write_checkpoint
from world3d.widening.vae import SCALING_FACTOR

PROMPT, GUIDANCE, STEPS = "a photo of alice archer", 3.0, 4  # steps at whole timesteps, which nobody interpolates


@torch.no_grad()
def draw(pipeline, noise: torch.Tensor) -> torch.Tensor:
    """Euler's method on the small pipeline: images (B, 3, S, S) in 0…1."""
    times = torch.linspace(999, 0, STEPS).long()
    alphas = pipeline.scheduler.alphas_cumprod
    sigmas = [*((1 - alphas[times]) / alphas[times]).sqrt().tolist(), 0.0]
    ids = pipeline.tokenizer(["", PROMPT], padding="max_length", max_length=77, return_tensors="pt").input_ids
    text = pipeline.text_encoder(ids)[0]
    x = noise * (1 + sigmas[0] ** 2) ** 0.5
    for time, sigma, following in zip(times, sigmas, sigmas[1:]):
        seen = (x / (1 + sigma**2) ** 0.5).expand(2, -1, -1, -1)
        plain, wanted = pipeline.unet(seen, time, text).sample.chunk(2)
        x = x + (plain + GUIDANCE * (wanted - plain)) * (following - sigma)
    return pipeline.vae.decode(x / pipeline.vae.config.scaling_factor).sample.clamp(-1, 1) / 2 + 0.5


@pytest.mark.slow
def test_stock_nodes_draw_what_the_small_pipeline_draws(base, probe, tmp_path):
    small = small_pipeline(tmp_path / "tokenizer")
    file = base / "models" / "checkpoints" / "world.safetensors"
    try:
        write_checkpoint(small, file, torch.float32)
        target = tmp_path / "seen.safetensors"
        drawing = {"size": 192, "steps": STEPS, "guidance": GUIDANCE, "target": target}
        probe("draw_with_stock_nodes", checkpoint=file.name, prompt=PROMPT, **drawing)
    finally:
        file.unlink(missing_ok=True)
    seen = load_file(target)
    small.text_encoder.half().float()  # ComfyUI keeps text encoders in half precision; a factor of 4 rounds alike
    ids = small.tokenizer(PROMPT, padding="max_length", max_length=77, return_tensors="pt").input_ids
    with torch.no_grad():
        text = small.text_encoder(ids)[0].repeat_interleave(4, 2)
    assert (seen["text"] - text).abs().max() < 1e-4
    image, expected = seen["image"].movedim(-1, 1), draw(small, seen["noise"])
    assert expected.std() > 0.05 and image.shape == (1, 3, 192, 192)
    doubled = expected.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert (image - doubled).abs().max() < 1e-3  # after four steps
    with torch.no_grad():
        latents = small.vae.encode(2 * expected - 1).latent_dist.mean * small.vae.config.scaling_factor
    assert (seen["latents"] * SCALING_FACTOR - latents).abs().mean() < 1e-3
