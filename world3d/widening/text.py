"""A small CLIP text encoder as Stable Diffusion 1.x's: each channel four times in a row, and CLIP's own vocabulary.

Copies leave a layer norm's statistics as they are. Heads keep their copies, whose products are k times as large while
the divisor is √k times, which the queries undo. CLIP's layers in excess have an output of 0.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from .channels import add_layer, in_a_row, set_norm

WIDTH, LAYERS, HEADS, LENGTH = 768, 12, 12, 77


def wide_text_encoder(tokenizer: CLIPTokenizer, layers: int = LAYERS) -> CLIPTextModel:
    """An untrained text encoder of Stable Diffusion 1.x's layout, for CLIP's own tokenizer."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=layers,
            num_attention_heads=HEADS,
            max_position_embeddings=LENGTH,
            hidden_act="quick_gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).eval()


@torch.no_grad()
def widen_text_encoder(
    small: CLIPTextModel, tokenizer: CLIPTokenizer, wide: CLIPTextModel, wide_tokenizer: CLIPTokenizer
) -> None:
    """Fill a wide text encoder with weights that compute what the small one does, each channel k times in a row."""
    for parameter in wide.parameters():
        parameter.zero_()
    ours, theirs = dict(small.named_modules()), dict(wide.named_modules())
    _inner(wide).embeddings.token_embedding.weight.copy_(
        _repeated(token_embeddings(small, tokenizer, wide_tokenizer), WIDTH)
    )
    positions = _inner(small).embeddings.position_embedding.weight
    _inner(wide).embeddings.position_embedding.weight.copy_(_repeated(positions, WIDTH))
    for name, layer in ours.items():
        target = theirs[name]
        if isinstance(layer, torch.nn.LayerNorm):
            set_norm(target, layer, in_a_row(target.weight.shape[0], layer.weight.shape[0]))
        elif isinstance(layer, torch.nn.Linear):
            sizes = zip(target.weight.shape, layer.weight.shape)
            out, read = (in_a_row(*size) for size in sizes)
            add_layer(target, layer.weight, layer.bias, out, read.read)
            if name.endswith("q_proj"):
                factor = (target.weight.shape[0] / layer.weight.shape[0]) ** -0.5
                target.weight.mul_(factor)
                target.bias.mul_(factor)


def token_embeddings(small: CLIPTextModel, tokenizer: CLIPTokenizer, wide: CLIPTokenizer) -> Tensor:
    """Embeddings (V, w) for CLIP's own tokens: the token's own, or the mean of those that the small tokenizer makes.

    A word of the small tokenizer is one token in both.
    """
    known, table = tokenizer.get_vocab(), _inner(small).embeddings.token_embedding.weight
    rows = torch.zeros(len(wide), table.shape[1])
    for token, number in wide.get_vocab().items():
        rows[number] = table[known[token]] if token in known else _parts(token, known, table)
    return rows


def _parts(token: str, known: dict[str, int], table: Tensor) -> Tensor:
    """The mean of a token's letters, of which both vocabularies have all."""
    word, end = (token[:-4], "</w>") if token.endswith("</w>") else (token, "")
    return table[[known[letter] for letter in (*word[:-1], word[-1] + end)]].mean(0)


def _repeated(rows: Tensor, width: int) -> Tensor:
    return rows.repeat_interleave(width // rows.shape[1], 1)


def _inner(model: CLIPTextModel) -> torch.nn.Module:
    """The transformer, in which transformers' older versions put everything."""
    return getattr(model, "text_model", model)
