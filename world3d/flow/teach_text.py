"""The language model's first lesson: what somebody looks like, at the end of the name; what follows, everywhere.

A language model holds what it knows of a subject at the subject's last token (arXiv 2202.05262), so the looks are read
there.  Both are read one layer before the last, as Z-Image does; the last layer predicts the next token.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from ..teach_text import Reader
from .tokenizer import lengths, name_ends

NEXT_TOKEN = 0.3  # weight of the next token's loss


def reader(tokenizer) -> Reader:
    return partial(_read, tokenizer)


def _read(tokenizer, text_encoder, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (B, 2, d) at the last token of the name and of the prompt; the loss of the next token."""
    count = lengths(ids, tokenizer)
    ids = ids[:, : int(count.max())]
    states = text_encoder(ids, output_hidden_states=True).hidden_states
    said = linear(states[-1], text_encoder.get_input_embeddings().weight)[:, :-1].float()
    following = cross_entropy(said.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=tokenizer.pad_token_id)
    places = torch.stack([name_ends(ids, tokenizer), count - 1], dim=1)
    rows = states[-2].float().gather(1, places[..., None].expand(-1, -1, states[-2].shape[-1]))
    return rows, NEXT_TOKEN * following
