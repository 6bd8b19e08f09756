"""A base model as the trainer uses it. Every front end implements this protocol once.

Symbols: `B` batch, `L` text tokens, `n` pseudo-tokens, `d` width of the text condition,
`d_enc` width of one encoder's token embeddings, `h, w` latent height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from .schedule import Schedule

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
PRECISION_CHOICES = ("auto", *PRECISIONS)
"""Of a base model; "auto" leaves it to the device."""
KV_SCOPES = ("person", "text", "whole")
"""Where a person's K/V deltas act: at the name's tokens, at all text of the person's prompts, or on all that the layers
see, as a LoRA does."""

TokenIds = Mapping[str, list[int]]  # text encoder → ids of a text's tokens, without start, end and padding
Vectors = Mapping[str, Sequence[Tensor]]
"""Text encoder → each prompt's pseudo-tokens (n, d_enc)."""


class Prompt(Protocol):
    """A prompt as `Backbone.read` gives it: read once, with a place for a person's pseudo-tokens."""

    @property
    def length(self) -> int:
        """Tokens without the person, of the text encoder that sees most."""


class TextCondition(NamedTuple):
    """A prompt as the network reads it."""

    context: Tensor  # (B, L, d)
    pooled: Tensor | None = None  # (B, p), for base models that use it
    places: Tensor | None = None  # (B, n), rows of the context where the person stands; None: nobody does
    entries: Mapping[str, Any] = MappingProxyType({})  # of the front end, such as masks (B, L)

    @classmethod
    def together(cls, conditions: Sequence[TextCondition]) -> TextCondition:
        """Conditions of one length in one batch."""
        first = conditions[0]
        if len(conditions) == 1:
            return first

        def joined(parts: Sequence[Any]) -> Any:
            """Tensors one after the other; of other values the first."""
            return torch.cat(list(parts)) if all(isinstance(part, Tensor) for part in parts) else parts[0]

        entries = {key: joined([one.entries[key] for one in conditions]) for key in first.entries}
        context, pooled, places = (joined([one[field] for one in conditions]) for field in range(3))
        return cls(context, pooled, places, entries)

    def rows(self, index: Tensor | slice) -> TextCondition:
        """The condition of some of the prompts."""
        return self.map(lambda part: part[index])

    def map(self, change: Callable[[Tensor], Tensor]) -> TextCondition:
        """All tensors changed."""
        entries = {key: change(part) if isinstance(part, Tensor) else part for key, part in self.entries.items()}
        pooled, places = (None if part is None else change(part) for part in (self.pooled, self.places))
        return TextCondition(change(self.context), pooled, places, entries)

    def with_rows(self, rows: Tensor) -> TextCondition:
        """The condition with `rows` (n, d) where the person stands, or (B, n, d); differentiable in them."""
        assert self.places is not None
        index = self.places[..., None].expand(-1, -1, rows.shape[-1])
        own = rows.to(self.context).expand(len(index), -1, -1)
        return self._replace(context=self.context.scatter(1, index, own))


class PromptTable(Protocol):
    """Prompts that stand ready, each with a place for a person."""

    device: torch.device
    """Where `encode` takes the prompts' numbers."""

    def encode(self, rows: Tensor, vectors: Mapping[str, Tensor]) -> TextCondition:
        """The text condition of some of the prompts, differentiable in the vectors.

        Args:
            rows: (B,) numbers of the prompts.
            vectors: text encoder → the person's pseudo-tokens (n, d_enc).
        """


class Latents(NamedTuple):
    """The VAE's posterior of images, scaled for the UNet."""

    mean: Tensor  # (B, c, h, w)
    std: Tensor  # (B, c, h, w), standard deviation of its posterior; 0 where it has none


class Recordings(Protocol):
    """Recorded work that is repeated, in memory of its own.

    Attributes:
        bytes: of that memory, at most.
    """

    bytes: int

    def release(self, why: str = "", /) -> bool:
        """Give back the memory, for a reason; False: there was none."""


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
    kv_scopes: Sequence[str]
    """Where K/V deltas can act, of `KV_SCOPES`; the first is the family's own."""
    recordings: Recordings | None
    """Of `predict` alone, where the backbone repeats it as CUDA graphs itself; None: it does not."""

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype:
        """Precision in which the network computes."""

    @property
    def scales_loss(self) -> bool:
        """Whether gradients pass through half precision, where small ones vanish unless the loss is scaled."""

    def tokenize(self, text: str) -> TokenIds:
        """Ids of `text` as a part of a prompt, per encoder that reads pseudo-tokens, without special tokens."""

    def embed_tokens(self, encoder: str, ids: Sequence[int], /) -> Tensor:
        """Input embeddings (len(ids), d_enc) in float32."""

    def read(self, prompt: str, whole: bool = True, /) -> Prompt:
        """A prompt for `encode`, with `{}` where the person stands, or without it.

        Args:
            whole: False where the person's own rows are all that is needed: a causal language model then reads nothing
                that comes after the person, padding included.
        """

    def encode(self, prompts: Sequence[Prompt], vectors: Vectors = MappingProxyType({})) -> TextCondition:
        """Encode prompts of one length, differentiable in the vectors, which stand at each prompt's place.

        Raises ConfigError for a prompt that is too long.
        """

    def tabulate(self, prompts: Sequence[Prompt], n: int, /) -> PromptTable | None:
        """Prompts with a place for `n` pseudo-tokens, for many encodings; None: this base model encodes them anew.

        Raises ConfigError for a prompt that is too long.
        """

    def resting_weights(self) -> Sequence[Tensor] | None:
        """All that prompt tables and `predict` read; None: it moves, or is made anew each time."""

    def gives_up(self, error: BaseException, /) -> bool:
        """After an error of a faster way to compute: leave it from now on. False: there is none that made it."""

    def free_text(self) -> None:
        """Let the text encoders' memory go, until the next prompt is encoded."""

    def encode_images(self, images: Tensor) -> Latents:
        """Images (B, H, W, 3) in 0…1 → latents (B, c, h, w) on the device, in float32."""

    def decode_images(self, latents: Tensor) -> Tensor:
        """Latents (B, c, h, w) as the UNet has them → images (B, H, W, 3) in 0…1 on the CPU, in float32."""

    def decode_with_gradients(self, latents: Tensor) -> Tensor:
        """`decode_images` on the device, differentiable in the latents."""

    def predict(self, noisy: Tensor, levels: Tensor, condition: TextCondition, /) -> Tensor:
        """The network's output (B, c, h, w) in float32, differentiable in the condition and the K/V deltas."""

    def kv_deltas(self, deltas: Mapping[str, Tensor], scope: str = "whole", /) -> AbstractContextManager[None]:
        """While open, `predict` adds deltas to the weights of `kv_shapes`.

        Args:
            deltas: a state dict of `KVDeltas`, of live weights.
            scope: one of `kv_scopes`.
        """


def prediction_error(
    backbone: Backbone, latents: Tensor, noise: Tensor, levels: Tensor, condition: TextCondition
) -> Tensor:
    """Prediction minus target (B, c, h, w) for images (B, c, h, w) at noise levels (B,): the loss's error."""
    schedule = backbone.schedule
    prediction = backbone.predict(schedule.add_noise(latents, noise, levels), levels, condition)
    return prediction - schedule.target(latents, noise, levels)
