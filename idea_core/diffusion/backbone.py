"""What the trainer asks of a base model. Every front end implements this protocol once.

Symbols: `B` batch, `L` text tokens, `n` pseudo-tokens, `d` width of the text condition,
`d_enc` width of one encoder's token embeddings, `h, w` latent height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
PRECISION_CHOICES = ("auto", *PRECISIONS)
"""In which a base model may compute; "auto" leaves it to the device."""

TokenIds = Mapping[str, list[int]]
"""Text encoder → ids of a text's tokens, without start, end and padding."""

TokenSequence = Sequence[int | Tensor]
"""One prompt for one encoder: ids, and embedding vectors (d_enc,) where a pseudo-token stands."""


class TextCondition(NamedTuple):
    """What the UNet is given of a prompt."""

    context: Tensor  # (B, L, d)
    pooled: Tensor | None = None  # (B, p), for base models that use it


class Latents(NamedTuple):
    """What the VAE makes of photos, scaled as the UNet wants it."""

    mean: Tensor  # (B, c, h, w)
    std: Tensor  # (B, c, h, w), standard deviation of its posterior; 0 where it has none


class Backbone(Protocol):
    """A frozen base model, ready for gradients with respect to its text condition."""

    base_model: str
    """Key in `BASE_MODELS`."""
    prediction: str
    """What the UNet predicts: "eps" or "v"."""
    clip_layer: int | None
    """Text encoder layer that gives the hidden states, counted from the end (-2); None: the model's own."""
    device: torch.device
    scales_loss: bool
    """Whether gradients pass through half precision, where small ones vanish unless the loss is scaled."""
    gradient_checkpointing: bool
    """Whether the UNet's inner values are computed twice and not kept; it may be set between two steps."""
    num_timesteps: int
    prompt_length: int
    """Tokens that the text encoders read at once, without start and end."""
    kv_shapes: Mapping[str, tuple[int, int]]
    """Cross attention's `to_k` and `to_v` → (out, in), named as in LDM checkpoints
    ("diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k")."""

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

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The UNet's input at `timesteps` (B,), integers in 0…num_timesteps − 1."""

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The output of a perfect UNet: the noise (eps) or the velocity (v)."""

    def predict(self, noisy: Tensor, timesteps: Tensor, condition: TextCondition) -> Tensor:
        """The UNet's output in float32, differentiable in the condition and the K/V deltas."""

    def kv_deltas(self, delta: Callable[[str], Tensor]) -> AbstractContextManager[None]:
        """While open, `delta(name)` (out, in) is added to each weight of `kv_shapes` in `predict`."""
