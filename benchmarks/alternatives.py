"""What a user would run instead of ID-EA, at equal batch: Textual Inversion as in diffusers' example, a LoRA of peft.

Both are restated as loops over a pipeline that they change. They train from the same photos' latents as ours, which
leaves the VAE out of their steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec

import torch
from torch import Tensor

Step = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Latents and noise (B, c, h, w), timesteps (B,) → loss."""


def textual_inversion(pipeline, captions: Sequence[str], batch_size: int, words: str = "<v0> <v1>") -> Step:
    """The loop of diffusers' `examples/textual_inversion`: it optimises the vocabulary, and restores all other rows."""
    tokenizer, encoder = pipeline.tokenizer, pipeline.text_encoder
    tokenizer.add_tokens(words.split())
    encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    table = encoder.get_input_embeddings().weight
    _freeze(pipeline)
    table.requires_grad_()
    before = table.detach().clone()
    others = torch.ones(len(table), dtype=torch.bool)
    others[tokenizer.convert_tokens_to_ids(words.split())] = False
    optimizer = torch.optim.AdamW([table], lr=5e-4)
    texts = [captions[number % len(captions)].format(words) for number in range(batch_size)]

    def step(latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        with _autocast(pipeline, latents):
            loss = _denoising_loss(pipeline, texts, latents, noise, timesteps)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            table[others] = before[others]
        return loss.detach()

    return step


def lora(pipeline, captions: Sequence[str], batch_size: int, rank: int = 8) -> Step | None:
    """A LoRA of all attentions of the UNet, as diffusers' `examples/text_to_image` trains it; None without peft."""
    if find_spec("peft") is None:
        return None
    from peft import LoraConfig

    _freeze(pipeline)
    pipeline.unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=["to_k", "to_q", "to_v", "to_out.0"]))
    trained = [weight for weight in pipeline.unet.parameters() if weight.requires_grad]
    for weight in trained:
        weight.data = weight.data.float()
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    texts = [captions[number % len(captions)].format("a person") for number in range(batch_size)]

    def step(latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        with _autocast(pipeline, latents):
            loss = _denoising_loss(pipeline, texts, latents, noise, timesteps)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def _autocast(pipeline, latents: Tensor) -> torch.autocast:
    dtype = pipeline.unet.dtype
    return torch.autocast(latents.device.type, dtype, enabled=dtype != torch.float32)


def _denoising_loss(pipeline, texts: Sequence[str], latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    tokenizer, scheduler = pipeline.tokenizer, pipeline.scheduler
    signal = scheduler.alphas_cumprod.to(latents)[timesteps].view(-1, 1, 1, 1)
    noisy = signal.sqrt() * latents + (1 - signal).sqrt() * noise
    length = tokenizer.model_max_length
    ids = tokenizer(
        list(texts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids
    dtype = pipeline.unet.dtype
    context = pipeline.text_encoder(ids.to(latents.device))[0].to(dtype)
    prediction = pipeline.unet(noisy.to(dtype), timesteps, encoder_hidden_states=context).sample
    return (prediction.float() - noise).square().mean()


def _freeze(pipeline) -> None:
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        part.requires_grad_(False)
