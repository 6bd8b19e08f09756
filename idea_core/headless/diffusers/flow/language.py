"""A pipeline's language model: prompts in its chat template, with vectors in them → text condition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from ....families import BaseModel
from ....text.captions import PLACEHOLDER
from ....text.tokenized import too_long

Piece = str | int
"""A text of a prompt, or the number of a person."""


class ReadPrompt(NamedTuple):
    """Ids of a prompt's texts, its template among them, and between them the numbers of people."""

    pieces: tuple[list[int] | int, ...]
    length: int  # tokens without people
    whole: bool = True  # or cut off after the last person, and not padded


class LanguageModel:
    """The text encoder of a pipeline, differentiable in the vectors of a prompt.

    Special tokens part a text for its tokenizer. In ComfyUI a person is such tokens first, so the texts around are read
    each on its own, here too.
    """

    def __init__(self, pipeline: Any, base: BaseModel):
        assert base.transformer is not None and base.transformer.headless is not None
        self.base, self._how = base, base.transformer.headless
        self._tokenizer, self.model = pipeline.tokenizer, pipeline.text_encoder
        # A language model for text has the same one inside, and a table over the vocabulary that nobody reads.
        self._states = getattr(self.model, "model", self.model)
        message = [{"role": "user", "content": PLACEHOLDER}]
        chat = self._tokenizer.apply_chat_template(
            message, tokenize=False, add_generation_prompt=True, enable_thinking=self._how.thinking
        )
        self._start, self._end = chat.split(PLACEHOLDER)

    @property
    def table(self) -> Tensor:
        """Input embeddings (V, d_enc) of the vocabulary."""
        return cast(nn.Embedding, self.model.get_input_embeddings()).weight

    def ids(self, text: str) -> list[int]:
        """Ids of a part of a prompt."""
        return list(self._tokenizer(text, add_special_tokens=False, verbose=False).input_ids) if text else []

    def read(self, pieces: Sequence[Piece], whole: bool = True) -> ReadPrompt:
        """A prompt in the chat template. The blank before a person goes: words carry it themselves.

        Args:
            whole: False leaves out what comes after the last person.
        """
        texts: list[Piece] = [self._start]
        for piece in (*pieces, self._end):
            last = texts[-1]
            if isinstance(piece, str) and isinstance(last, str):
                texts[-1] = last + piece
            else:
                if isinstance(piece, int) and isinstance(last, str) and last[-1:].isspace() and last != self._start:
                    texts[-1] = last[:-1]
                texts.append(piece)
        while not whole and isinstance(texts[-1], str):
            texts.pop()
        read = tuple(self.ids(text) if isinstance(text, str) else text for text in texts)
        return ReadPrompt(read, sum(len(piece) for piece in read if isinstance(piece, list)), whole)

    def encode(self, prompt: ReadPrompt, people: Sequence[Sequence[Tensor]]) -> tuple[Tensor, list[list[int]]]:
        """The text condition (B, L, d), and the rows at which each person stands.

        Args:
            people: number of a person → vectors (n, d_enc), one for each of B prompts.

        Raises:
            ConfigError: a prompt that is too long.
        """
        table, batch = self.table, len(people[0]) if people else 1
        parts: list[Tensor] = []
        places: list[list[int]] = [[] for _ in people]
        length = 0
        for piece in prompt.pieces:
            if isinstance(piece, list):
                part = table[torch.tensor(piece, device=table.device, dtype=torch.long)].expand(batch, -1, -1)
            else:
                part = torch.stack(list(people[piece])).to(table)
                places[piece] += range(length, length + part.shape[1])
            parts.append(part)
            length += part.shape[1]
        if length > self.base.context_length:
            raise too_long(self.base.context_length, length)
        embedded, first = self._padded(torch.cat(parts, dim=1)) if prompt.whole else (torch.cat(parts, dim=1), 0)
        mask = torch.zeros(embedded.shape[:2], dtype=torch.long, device=table.device)
        mask[:, first : first + length] = 1
        states = self._states(
            inputs_embeds=embedded, attention_mask=mask, output_hidden_states=True, use_cache=False
        ).hidden_states
        context = torch.cat([states[layer] for layer in self._how.layers], dim=-1).float()
        return context, [[row + first for row in rows] for rows in places]

    def _padded(self, embedded: Tensor) -> tuple[Tensor, int]:
        """Embeddings (B, L, d_enc) with those of padding, where the family pads; the row at which the prompt begins."""
        missing = self.base.context_length - embedded.shape[1] if self._how.padded else 0
        if not missing:
            return embedded, 0
        padding = self.table[self._tokenizer.pad_token_id].expand(len(embedded), missing, -1)
        if self._tokenizer.padding_side == "left":
            return torch.cat([padding, embedded], dim=1), missing
        return torch.cat([embedded, padding], dim=1), 0
