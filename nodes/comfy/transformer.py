"""ComfyUI's flow-matching transformers (FLUX, Z-Image) and their text encoders as the trainer's `Backbone`.

Noise, prediction and text conditions come from ComfyUI's own `apply_model`, `extra_conds` and `encode_token_weights`,
so that training and sampling compute the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from types import MappingProxyType
from typing import cast

import comfy.model_management
import torch
from torch import Tensor

from ...idea_core.diffusion.backbone import KV_SCOPES, Prompt, TextCondition, TokenIds, Vectors
from ...idea_core.diffusion.memory import send
from ...idea_core.errors import BaseModelError
from ...idea_core.families import BASE_MODELS, BaseModel
from ...idea_core.method.kv import FusedKV
from ...idea_core.text.captions import PLACEHOLDER
from ...idea_core.text.tokenized import too_long
from .autograd import differentiable_attention, recomputed_on_copies
from .loaded import LoadedModels
from .models import flow_of, fused_layers
from .scoped_kv import marked_rows, rows_marked
from .stand_ins import places, reader_of, spliced

_TOKENS_AT_ONCE = 2048
"""Of prompts that are encoded in one batch."""
_TRAINED = "idea_trained"
"""Key of the person in training, beside those of people who are applied."""


class ReadPrompt:
    """A prompt with a place for a person. Its tokens are read once for each number of pseudo-tokens.

    Args:
        whole: False where the person's own rows are all that is needed.
    """

    def __init__(self, clip, base: BaseModel, prompt: str, whole: bool = True):
        before, *after = prompt.split(PLACEHOLDER, 1)
        self.parts = [part for part in (before, *([0, after[0]] if after else [])) if part != ""]
        assert base.transformer is not None
        self._tokenizer, self._base = clip.tokenizer, base
        self.whole, self._cut = whole, not whole and base.transformer.causal
        self._read = cache(clip.tokenize)  # with the options of its tokenizer
        readers = [reader_of(clip.tokenizer, encoder) for encoder in base.encoders]
        self.length = max(len(reader.tokenizer(prompt)["input_ids"]) for reader in readers)

    def filled(self, vectors: Mapping[str, Sequence[Tensor]]) -> dict[str, list]:
        """ComfyUI's tokens of the prompt with the person's vectors in it."""
        tokens = spliced(self._read, self._tokenizer, self._base, self.parts, [vectors] if vectors else [])
        if self._cut:
            for encoder in vectors:
                tokens[encoder] = [_without_tail(chunk) for chunk in tokens[encoder]]
        return tokens


class TransformerBackbone(LoadedModels):
    """The backbone of a flow-matching transformer. Its blocks and its text encoders' are always computed twice."""

    kv_scopes: Sequence[str] = KV_SCOPES

    def __init__(self, model, clip, vae, precision: str = "auto", _gradient_checkpointing: bool = True):
        if not hasattr(comfy.model_management, "in_training"):
            raise BaseModelError(
                "a ComfyUI that can train transformers", "an older version", "Update ComfyUI to 0.33 or newer."
            )
        super().__init__(model, clip, vae, precision, gradient_checkpointing=True)
        self._base, self._clip = BASE_MODELS[self.base_model], clip
        assert self._base.transformer is not None
        self._how = self._base.transformer
        self.schedule = flow_of(model)
        self.kv_layers = fused_layers(self._network, self._base)
        self.kv_shapes = {
            name: (self._in_features(layer),) * 2 for layer, kv in self.kv_layers.items() for name in kv[:2]
        }
        self._network_used = self._text_used = False
        self._kv_scope = "whole"

    def __enter__(self) -> TransformerBackbone:
        super().__enter__()
        for module in (self._network, self._text_patcher.model):
            self._exit.enter_context(recomputed_on_copies(module, self._how.blocks))
        return self

    def tokenize(self, text: str) -> TokenIds:
        return super().tokenize(f" {text}" if text else text)  # a language model's words carry the blank before them

    def read(self, prompt: str, whole: bool = True) -> Prompt:
        return ReadPrompt(self._clip, self._base, prompt, whole)

    def encode(self, prompts: Sequence[Prompt], vectors: Vectors = MappingProxyType({})) -> TextCondition:
        traced = torch.is_grad_enabled() and any(row.requires_grad for rows in vectors.values() for row in rows)
        self._use(network=traced, text=True)
        own = [{encoder: rows[number] for encoder, rows in vectors.items()} for number in range(len(prompts))]
        if own and not cast(ReadPrompt, prompts[0]).whole:
            return self._encode_people(cast(ReadPrompt, prompts[0]), own)
        # A prompt may be there several times with the same vectors, which `own` keeps alive: their identity tells.
        keys = [(id(prompt), *map(id, mine.values())) for prompt, mine in zip(prompts, own)]
        different = {key: (prompt, mine) for key, prompt, mine in zip(keys, prompts, own)}
        encoded = {key: self._encode(cast(ReadPrompt, prompt), [mine]) for key, (prompt, mine) in different.items()}
        return TextCondition.together([encoded[key] for key in keys])

    def _encode_people(self, prompt: ReadPrompt, people: Sequence[Vectors]) -> TextCondition:
        """One prompt with each of many people, as many at a time as a few prompts have tokens."""
        encoder = next(iter(self._base.encoders))
        length = sum(map(len, prompt.filled(people[0])[encoder]))
        at_once = max(1, _TOKENS_AT_ONCE // length)
        parts = [people[begin : begin + at_once] for begin in range(0, len(people), at_once)]
        return TextCondition.together([self._encode(prompt, part) for part in parts])

    def _encode(self, prompt: ReadPrompt, people: Sequence[Vectors]) -> TextCondition:
        """A prompt with each of some people, whose vectors are equally many."""
        if prompt.length > self.prompt_length:
            raise too_long(self.prompt_length, prompt.length)
        comfy.model_management.throw_exception_if_processing_interrupted()
        # The same objects are found again below.
        own = [{encoder: list(rows) for encoder, rows in vectors.items()} for vectors in people]
        filled = [prompt.filled(vectors) for vectors in own]
        # ComfyUI encodes a prompt's chunks in one batch, and puts their rows one after the other.
        tokens = {**filled[0], **{key: [chunk for one in filled for chunk in one[key]] for key in own[0]}}
        context, pooled, *extra = self._text_patcher.model.encode_token_weights(tokens)

        def parted(rows: Tensor) -> Tensor:
            """(1, B · L, …) → (B, L, …)."""
            return torch.cat(rows.chunk(len(people), dim=1))

        context = parted(context)
        encoder = next(iter(self._base.encoders))
        rows = places(filled[0][encoder], own[0][encoder], context.shape[1]) if own[0] else []
        return TextCondition(
            context.to(self.device, torch.float32),
            None if pooled is None else pooled.to(self.device).expand(len(people), -1),
            send(torch.tensor([rows] * len(people)), self.device) if rows else None,
            {key: parted(entry) if isinstance(entry, Tensor) else entry for key, entry in dict(*extra).items()},
        )

    def embed_tokens(self, encoder: str, ids: Sequence[int]) -> Tensor:
        self._use(network=False, text=True)
        return super().embed_tokens(encoder, ids)

    def free_text(self) -> None:
        self._network_used, self._text_used, self._pushed_out = True, False, self._loaded

    def _use(self, network: bool, text: bool) -> None:
        """Load what a computation needs: network and text encoder together only for a gradient through both."""
        if (network and not self._network_used) or (text and not self._text_used):
            self._network_used, self._text_used, self._pushed_out = network, text, self._loaded
        self._load()

    def _needed(self) -> list:
        used = ((self._network_used, self._patcher), (self._text_used, self._text_patcher))
        return [patcher for needed, patcher in used if needed]

    def predict(self, noisy: Tensor, levels: Tensor, condition: TextCondition) -> Tensor:
        comfy.model_management.throw_exception_if_processing_interrupted()
        self._use(network=True, text=False)
        model = self._patcher.model
        inputs = self._inputs(noisy, condition)
        marks = marks_of(condition, inputs["c_crossattn"].shape[1], self._kv_scope)
        options = {"optimized_attention_override": differentiable_attention}
        with rows_marked(None, {} if marks is None else {_TRAINED: marks}):
            denoised = model.apply_model(noisy, levels, transformer_options=options, **inputs)
        return (noisy - denoised) / levels.view(-1, *[1] * (noisy.ndim - 1))

    def _inputs(self, noisy: Tensor, condition: TextCondition) -> dict:
        """What the MODEL makes of a text condition for a batch: guidance, token counts, masks."""
        entries = {"cross_attn": condition.context, "pooled_output": condition.pooled, **condition.entries}
        if self._how.guidance is not None:
            entries["guidance"] = self._how.guidance
        conds = self._patcher.model.extra_conds(**entries, noise=noisy, device=self.device, prompt_type="positive")
        return {key: cond.process_cond(batch_size=len(noisy), area=None).cond for key, cond in conds.items()}

    @contextmanager
    def kv_deltas(self, deltas: Mapping[str, Tensor], scope: str = "whole") -> Iterator[None]:
        def hook(kv: FusedKV):
            def change(_layer, inputs: tuple, output: Tensor) -> Tensor:
                marks = marked_rows(_TRAINED)
                nobody = marks is None and scope != "whole"
                return output if nobody else kv.changed(inputs[0], output, deltas, marks)

            return change

        self._kv_scope = scope
        with ExitStack() as stack:
            for layer, kv in self.kv_layers.items():
                stack.callback(self._network.get_submodule(layer).register_forward_hook(hook(kv)).remove)
            yield

    def _in_features(self, layer: str) -> int:
        return int(self._network.get_submodule(layer).in_features)


def marks_of(condition: TextCondition, length: int, scope: str) -> Tensor | None:
    """1 at the rows (B, L, 1) of the text, as the network is given it, where K/V deltas of a scope act.

    None: they act everywhere, for "whole", or nowhere, without a person. A MODEL may pad the text on the left.
    """
    if condition.places is None or scope == "whole":
        return None
    marks = condition.context.new_zeros(len(condition.context), length)
    first = length - condition.context.shape[1]
    if scope == "text":
        marks[:, first:] = 1
        return marks[..., None]
    return marks.scatter(1, condition.places + first, 1.0)[..., None]


def _without_tail(chunk: Sequence[tuple]) -> list[tuple]:
    """A chunk of tokens up to its last vector."""
    last = max(number for number, (token, *_) in enumerate(chunk) if isinstance(token, Tensor))
    return list(chunk[: last + 1])
