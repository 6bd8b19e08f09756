"""A pipeline's tokenizers and text encoders: prompts of token ids and vectors → text condition."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import CLIPTextModel

from ...diffusion.backbone import TextCondition, TokenIds
from ...diffusion.memory import send
from ...errors import BaseModelError, ConfigError
from ...families import BASE_MODELS, HEADLESS_FLOWS, UNETS
from ...text.tokenized import too_long, with_vectors

TokenSequence = Sequence[int | Tensor]  # one prompt for one encoder: ids, and vectors (d_enc,) of pseudo-tokens
TEXT_ENCODERS = ("text_encoder", "text_encoder_2")
"""Names of a pipeline's parts."""


def family_of(pipeline: Any) -> str:
    """Key in `BASE_MODELS` of a pipeline, by its class and the widths of its text encoders and its network.

    Raises:
        BaseModelError: an unknown family.
    """
    widths = [encoder.config.hidden_size for encoder in text_encoders_of(pipeline)]
    context = _context_width(pipeline)
    flow = type(pipeline).__name__ in {base.pipeline for base in HEADLESS_FLOWS}
    for base in HEADLESS_FLOWS if flow else UNETS:
        same = (list(base.encoders.values()), base.width) == (widths, context)
        if same and (not flow or base.pipeline == type(pipeline).__name__):
            return base.key
    raise BaseModelError(
        f"a pipeline of {', '.join(base.title for base in (*UNETS, *HEADLESS_FLOWS))}",
        f"text encoders of width {widths} and a network that reads a width of {context}",
        "Choose another base model.",
    )


def _context_width(pipeline: Any) -> int | None:
    """Width of the text condition that a pipeline's network reads."""
    network = getattr(pipeline, "unet", None) or pipeline.transformer
    names = ("cross_attention_dim", "cap_feat_dim", "joint_attention_dim")  # UNet2DConditionModel, Z-Image, FLUX.2
    return next((network.config[name] for name in names if name in network.config), None)


@dataclass(frozen=True)
class _Part:
    """One text encoder with its tokenizer.

    Attributes:
        hidden: index of the hidden states that are used; -1 is the last.
        normed: whether the final layer norm follows.
    """

    tokenizer: Any
    model: CLIPTextModel
    hidden: int
    normed: bool

    @property
    def table(self) -> Tensor:
        """Input embeddings (V, d_enc) of the vocabulary."""
        return cast(nn.Embedding, self.model.get_input_embeddings()).weight

    def read(self, ids: Tensor, insert: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor | None]:
        """Hidden states (B, L, d_enc) and, where there is a projection, the pooled output (B, p) of ids (B, L).

        Args:
            insert: puts vectors among the ids' input embeddings (B, L, d_enc).
        """
        hook = self.model.get_input_embeddings().register_forward_hook(lambda _module, _ids, out: insert(out))
        try:
            output = self.model(input_ids=ids, output_hidden_states=True)
        finally:
            hook.remove()
        hidden = output.hidden_states[self.hidden]
        if self.normed:
            hidden = getattr(self.model, "text_model", self.model).final_layer_norm(hidden)
        return hidden.float(), getattr(output, "text_embeds", None)


class EncodedTable:
    """Prompts on the device as ids, with the columns where one person's pseudo-tokens stand.

    Args:
        tables: text encoder → it, ids (C, L), and columns (C, n, 1).
    """

    def __init__(self, tables: Mapping[str, tuple[_Part, Tensor, Tensor]]):
        self._tables = tables
        self.device = next(ids.device for _, ids, _ in tables.values())

    def encode(self, rows: Tensor, vectors: Mapping[str, Tensor]) -> TextCondition:
        outputs = []
        for name, (part, ids, columns) in self._tables.items():

            def insert(embedded: Tensor, own: Tensor = vectors[name], columns: Tensor = columns) -> Tensor:
                return with_vectors(embedded, own, columns[rows])

            outputs.append(part.read(ids[rows], insert))
        contexts, pooled = zip(*outputs)
        return TextCondition(torch.cat(contexts, dim=-1), pooled[-1])


class TextEncoders:
    """The text encoders of a pipeline under ID-EA's names, differentiable in the vectors of a prompt.

    Args:
        clip_layer: text encoder layer, counted from the end; None: the model's own.

    Raises:
        BaseModelError: a pipeline of no known family.
        ConfigError: a layer that the model does not have.
    """

    def __init__(self, pipeline: Any, clip_layer: int | None = None):
        self.family = family_of(pipeline)
        base = BASE_MODELS[self.family]
        tokenizers = [pipeline.tokenizer, getattr(pipeline, "tokenizer_2", None)]
        # Several encoders are used without the final norm. A single one lacks the layers after its own, if any.
        several = len(base.encoders) > 1
        beyond = 0 if several else base.clip_layer + 1
        hidden = (base.clip_layer if clip_layer is None else clip_layer) - beyond
        self._parts = {}
        for name, tokenizer, model in zip(base.encoders, tokenizers, text_encoders_of(pipeline)):
            layers = model.config.num_hidden_layers
            if not -layers <= hidden <= -1:
                got = str(clip_layer)
                raise ConfigError(f"a clip_layer from {beyond - layers} to {beyond - 1}", got, "Change clip_layer.")
            self._parts[name] = _Part(tokenizer, model, hidden, normed=not several)

    @property
    def models(self) -> list[CLIPTextModel]:
        return [part.model for part in self._parts.values()]

    @property
    def length(self) -> int:
        """Tokens of one encoded chunk, start and end included: 77."""
        return min(part.model.config.max_position_embeddings for part in self._parts.values())

    def tokenize(self, text: str) -> TokenIds:
        """Ids of `text` per encoder, without special tokens."""
        parts = self._parts.items()
        return {name: part.tokenizer(text, add_special_tokens=False, verbose=False).input_ids for name, part in parts}

    def embed(self, encoder: str, ids: Sequence[int]) -> Tensor:
        """Input embeddings (len(ids), d_enc) in float32."""
        table = self._parts[encoder].table
        return table[torch.tensor(ids, device=table.device)].float()

    def encode(self, prompts: Mapping[str, Sequence[TokenSequence]]) -> TextCondition:
        """Text condition of prompts, each of one chunk, which begins with the start token.

        Raises:
            ConfigError: a prompt too long for one chunk.
        """
        outputs = [self._encode(part, prompts[name]) for name, part in self._parts.items()]
        contexts, pooled = zip(*outputs)
        return TextCondition(torch.cat(contexts, dim=-1), pooled[-1])

    def tabulate(self, prompts: Mapping[str, Sequence[TokenSequence]], n: int) -> EncodedTable:
        """Prompts whose vectors are those of one person, of `n` tokens."""
        tables = {}
        for name, part in self._parts.items():
            ids, vectors = self._rows(part, prompts[name])
            places = torch.tensor([column for _, column in vectors]).view(-1, n, 1)
            device = part.table.device
            tables[name] = part, torch.tensor(ids, device=device), places.to(device)
        return EncodedTable(tables)

    def _encode(self, part: _Part, sequences: Sequence[TokenSequence]) -> tuple[Tensor, Tensor | None]:
        """Hidden states (B, L, d_enc) and, where the encoder has a projection, the pooled output (B, p)."""
        ids, vectors = self._rows(part, sequences)
        device = part.table.device

        def insert(embedded: Tensor) -> Tensor:
            if not vectors:
                return embedded
            places = send(torch.tensor(list(vectors)), device).T
            return embedded.index_put(tuple(places), torch.stack(list(vectors.values())).to(embedded))

        return part.read(send(torch.tensor(ids), device), insert)

    def _rows(
        self, part: _Part, sequences: Sequence[TokenSequence]
    ) -> tuple[list[list[int]], dict[tuple[int, int], Tensor]]:
        """Padded ids, with 0 in place of a vector, and the vectors by row and column."""
        tokenizer, length = part.tokenizer, self.length
        rows, vectors = [], {}
        for number, sequence in enumerate(sequences):
            if len(sequence) > length - 2:
                raise too_long(length - 2, len(sequence))
            row = [tokenizer.bos_token_id, *sequence, tokenizer.eos_token_id]
            row += [tokenizer.pad_token_id] * (length - len(row))
            for column, entry in enumerate(row):
                if torch.is_tensor(entry):
                    vectors[number, column] = entry
                    row[column] = 0  # any id but the end token's, which marks the pooled output
            rows.append(row)
        return rows, vectors


def text_encoders_of(pipeline: Any) -> list[CLIPTextModel]:
    """The pipeline's text encoders, in order."""
    encoders = [getattr(pipeline, part, None) for part in TEXT_ENCODERS]
    return [encoder for encoder in encoders if encoder is not None]
