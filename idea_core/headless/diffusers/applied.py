"""Trained people in a diffusers pipeline: names in prompts, adapters, keys and values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isfinite
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...diffusion.backbone import TextCondition
from ...errors import BaseModelError, ConfigError
from ...families import BASE_MODELS
from ...identity.identity import Identity
from ...method.kv import FULL, delta_of, kv_added, layers_of
from ...text.emphasis import weighted_texts
from ...text.names import alike
from ...text.prompts import in_chunks, split_prompt
from .backbone import cross_attention_layers
from .text import TextEncoders

LONG_WORD = 8  # tokens from which a word may be split between two chunks


class _Token(NamedTuple):
    """A token's id or vector in a prompt, its weight, and the number of its person."""

    token: int | Tensor
    weight: float = 1.0
    person: int | None = None


class People:
    """Identities applied to one pipeline, which stays unchanged.

    Args:
        pipeline: `StableDiffusionPipeline` or `StableDiffusionXLPipeline`.
        identities: of the pipeline's family, all trained on one text encoder layer; none: the base model alone.
        strength: factor on the adapters' differences.
        kv_strength: factor on the K/V deltas.

    Raises:
        ConfigError: two people of one name.
        BaseModelError: an identity of another family or with other cross attentions, or two of different layers.
    """

    def __init__(self, pipeline: Any, identities: Sequence[Identity], strength: float = 1.0, kv_strength: float = 1.0):
        self.identities, self.strength = tuple(identities), strength
        self.names = [identity.name for identity in identities]
        require_names_apart(self.names)
        self.text = TextEncoders(pipeline, _shared_layer(self.identities))
        require_family(self.identities, self.text.family)
        self._device = pipeline.unet.device
        layers = cross_attention_layers(pipeline.unet)
        deltas = self._sum_deltas(layers, kv_strength)
        self._deltas = {name: delta.to(pipeline.unet.dtype) for name, delta in deltas.items()}  # once, not at each step
        self._layers = {name: layers[name] for name in self._deltas}

    @torch.no_grad()
    def encode(self, prompt: str, chunks: int = 1) -> TextCondition:
        """``y' = y + strength · difference`` (1, 77·k, d), each difference in the chunks that name its person.

        Weights in the prompt act on `y` as in ComfyUI (`_weigh`).

        Args:
            chunks: minimum number k of chunks of 77 tokens.

        Raises:
            ConfigError: `{}` with several people, or a weight that is not finite.
        """
        parts = [(part, weight) for text, weight in weighted_texts(prompt) for part in split_prompt(text, self.names)]
        _require_finite(prompt, [weight for _, weight in parts])
        sequences = {encoder: self._sequences(encoder, parts) for encoder in BASE_MODELS[self.text.family].encoders}
        chunks = max(chunks, *map(len, sequences.values()))
        padded = {encoder: rows + [[]] * (chunks - len(rows)) for encoder, rows in sequences.items()}
        present = [{one.person for rows in padded.values() for one in rows[row]} - {None} for row in range(chunks)]
        context, pooled, *_ = self.text.encode(
            {encoder: [[one.token for one in row] for row in rows] for encoder, rows in padded.items()}
        )
        if any(weight != 1 for _, weight in parts):
            context = self._weigh(context, padded)
        adapted = context + self.strength * self._differences(context, present)
        return TextCondition(adapted.reshape(1, -1, context.shape[-1]), None if pooled is None else pooled[:1])

    @contextmanager
    def kv(self) -> Iterator[None]:
        """Inside, the UNet has the people's keys and values; without gradients."""
        with kv_added(self._layers, {name + FULL: delta for name, delta in self._deltas.items()}, kept=True):
            yield

    def _sequences(self, encoder: str, parts: Sequence[tuple[str | int, float]]) -> list[list[_Token]]:
        """Chunks of tokens. A person's tokens stay together, and a short word's, as in ComfyUI."""
        groups: list[list[_Token]] = []
        for part, weight in parts:
            if isinstance(part, str):
                for word in part.split():
                    tokens = [_Token(token, weight) for token in self.text.tokenize(word)[encoder]]
                    groups += [tokens] if len(tokens) < LONG_WORD else [[token] for token in tokens]
            else:
                vectors = self.identities[part].tokens[encoder].float()
                groups.append([_Token(vector, weight, part) for vector in vectors])
        return in_chunks(groups, self.text.length - 2)

    def _weigh(self, context: Tensor, rows: Mapping[str, Sequence[Sequence[_Token]]]) -> Tensor:
        """``z' = z₀ + w · (z − z₀)`` for each token (k, 77, d), with `z₀` of the empty prompt there (ComfyUI's way).

        Args:
            rows: the tokens of each chunk, by text encoder.
        """
        encoders = BASE_MODELS[self.text.family].encoders
        empty, *_ = self.text.encode({encoder: [[]] for encoder in encoders})
        weights = torch.ones_like(context)
        for part, encoder in zip(weights.split(list(encoders.values()), dim=-1), encoders):  # views
            for number, row in enumerate(rows[encoder]):
                part[number, 1 : len(row) + 1] = torch.tensor([one.weight for one in row]).to(part)[:, None]
        return torch.where(weights == 1, context, empty + weights * (context - empty))

    def _differences(self, context: Tensor, present: Sequence[set[int | None]]) -> Tensor:
        """The adapters' differences (k, L, d), each in the chunks that hold its person."""
        total = torch.zeros_like(context)
        for number, identity in enumerate(self.identities):
            rows = [row for row, people in enumerate(present) if number in people]
            if rows and identity.grounding is not None:
                adapter = identity.build_adapter(context.device)
                total[rows] += adapter.difference(context[rows], identity.grounding.to(context))
        return total

    def _sum_deltas(self, layers: Mapping[str, nn.Linear], strength: float) -> dict[str, Tensor]:
        """Layer → sum of the people's deltas (out, in)."""
        total: dict[str, Tensor] = {}
        for identity in self.identities if strength else ():
            for name in layers_of(identity.kv):
                delta = strength * delta_of(identity.kv, name).to(self._device)
                if name not in layers or layers[name].weight.shape != delta.shape:
                    got = tuple(layers[name].weight.shape) if name in layers else "none"
                    raise BaseModelError(
                        f"a base model with {name} of shape {tuple(delta.shape)}",
                        str(got),
                        f"{identity.trigger} was trained on {identity.base_checkpoint or 'another checkpoint'}: "
                        "use that, or a K/V strength of 0.",
                    )
                total[name] = total[name] + delta if name in total else delta
        return total


def _require_finite(prompt: str, weights: Sequence[float]) -> None:
    if not all(map(isfinite, weights)):
        got = ", ".join(str(weight) for weight in weights if not isfinite(weight))
        raise ConfigError(f"finite weights in {prompt[:80]!r}", got, "Write weights such as (…:1.3).")


def require_family(identities: Sequence[Identity], family: str) -> None:
    """Raise `BaseModelError` unless all identities are of a family."""
    for identity in identities:
        if identity.base_model != family:
            raise BaseModelError(
                f"a base model of {identity.base.title}, on which {identity.trigger} was trained",
                family,
                "Choose another base model, or train the person on this one.",
            )


def require_names_apart(names: Sequence[str]) -> None:
    """Raise `ConfigError` if two people have one name."""
    for name in names:
        if sum(alike(name) == alike(other) for other in names) > 1:
            raise ConfigError("people of different names", f"two of <{name}>", "Rename one: idea convert --name.")


def _shared_layer(identities: Sequence[Identity]) -> int | None:
    layers = {identity.text_layer for identity in identities}
    if len(layers) > 1:
        got = ", ".join(map(str, sorted(layers)))
        raise BaseModelError("people trained on one text encoder layer", got, "Apply only people of one layer.")
    return layers.pop() if layers else None
