"""A base model as the trainer uses it. Every front end implements this protocol once.

Symbols: `B` batch, `L` text tokens, `n` pseudo-tokens, `d` width of the text condition,
`d_enc` width of one encoder's token embeddings, `h, w` latent height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from .schedule import Schedule

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
PRECISION_CHOICES = ("auto", *PRECISIONS)
"""Of a base model; "auto" leaves it to the device."""

TokenIds = Mapping[str, list[int]]  # text encoder → ids of a text's tokens, without start, end and padding
TokenSequence = Sequence[int | Tensor]  # one prompt for one encoder: ids, and vectors (d_enc,) of pseudo-tokens


class TextCondition(NamedTuple):
    """A prompt as the network reads it."""

    context: Tensor  # (B, L, d)
    pooled: Tensor | None = None  # (B, p), for base models that use it


class Latents(NamedTuple):
    """The VAE's posterior of images, scaled for the UNet."""

    mean: Tensor  # (B, c, h, w)
    std: Tensor  # (B, c, h, w), standard deviation of its posterior; 0 where it has none


class Backbone(Protocol):
    """A frozen base model, ready for gradients with respect to its text condition."""

    base_model: str
    """Key in `BASE_MODELS`."""
    schedule: Schedule
    """How images and noise are mixed, and what the network answers."""
    clip_layer: int | None
    """Text encoder layer that gives the hidden states, counted from the end (-2); None: the model's own."""
    gradient_checkpointing: bool
    """Whether the network's inner values are computed twice and not kept; it may be set between two steps."""
    prompt_length: int
    """Tokens that the text encoders read at once, without start and end."""
    kv_shapes: Mapping[str, tuple[int, int]]
    """Weights, or rows of them, that make keys or values of the text → (out, in), under their names in identity files:
    LDM's for Stable Diffusion ("diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k")."""

    @property
    def device(self) -> torch.device: ...

    @property
    def scales_loss(self) -> bool:
        """Whether gradients pass through half precision, where small ones vanish unless the loss is scaled."""

    def tokenize(self, text: str) -> TokenIds:
        """Ids of `text` per encoder, without special tokens."""

    def embed_tokens(self, encoder: str, ids: Sequence[int]) -> Tensor:
        """Input embeddings (len(ids), d_enc) in float32."""

    def encode(self, prompts: Mapping[str, Sequence[TokenSequence]]) -> TextCondition:
        """Encode prompts, differentiable in the vectors that stand in them.

        The start token is put before and the end token after each, then padding. Row `i` of a
        prompt's tokens stands at position `i + 1` of the context.
        """

    def encode_images(self, images: Tensor) -> Latents:
        """Images (B, H, W, 3) in 0…1 → latents (B, c, h, w) on the device, in float32."""

    def decode_images(self, latents: Tensor) -> Tensor:
        """Latents (B, c, h, w) as the UNet has them → images (B, H, W, 3) in 0…1 on the CPU, in float32."""

    def decode_with_gradients(self, latents: Tensor) -> Tensor:
        """`decode_images` on the device, differentiable in the latents."""

    def predict(self, noisy: Tensor, timesteps: Tensor, condition: TextCondition) -> Tensor:
        """The network's output (B, c, h, w) in float32, differentiable in the condition and the K/V deltas."""

    def kv_deltas(self, delta: Callable[[str], Tensor]) -> AbstractContextManager[None]:
        """While open, `delta(name)` (out, in) is added to each weight of `kv_shapes` in `predict`."""
