"""What Apply ID-Adapter hangs into CLIP: the person's name in prompts, and the adapter's difference.

A prompt that holds `<name>` gets the person's pseudo-tokens there, and its conditioning carries the
difference that the adapter makes to it (computed once, here) to the MODEL, which adds it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from itertools import zip_longest

import comfy.sd1_clip
import torch
from torch import Tensor

from ..idea_core.errors import ConfigError
from ..idea_core.identity import Identity
from ..idea_core.prompts import strangers, texts_around

CHUNK = 77
_hinted: set[tuple[str, tuple[str, ...]]] = set()
_STAND_INS = ("zebra", "violin", "cactus", "kayak", "tulip", "magnet", "pickle", "lantern")  # one CLIP token each


class IdentityTokenizer:
    """A CLIP's tokenizer that also knows one person's name; all else is the wrapped tokenizer's.

    The name is looked for with the wrapped tokenizer's own reading of weights and brackets: each
    `<name>` becomes `n` copies of a common word that the prompt does not hold, in a group of its own
    so that no chunk border falls into it, and the tokens of that word are then replaced.
    """

    def __init__(self, tokenizer, identity: Identity):
        self._tokenizer = tokenizer
        self._vectors = {key: list(tokens.float()) for key, tokens in identity.tokens.items()}
        self._count = identity.n
        self._person = identity.name
        self.triggers = (*getattr(tokenizer, "triggers", ()), identity.trigger)

    def __getattr__(self, name: str):
        return getattr(_wrapped(self, "_tokenizer", name), name)

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **kwargs) -> dict[str, list]:
        self._hint(text)
        if len(texts_around(text, self._person)) == 1:
            return self._tokenizer.tokenize_with_weights(text, return_word_ids, **kwargs)
        word = next((word for word in _STAND_INS if word not in text.lower()), None)
        if word is None:
            raise ConfigError("a prompt without one of " + ", ".join(_STAND_INS), "all of them", "Leave one out.")
        text = "".join(self._with_stand_ins(*segment, word) for segment in _segments(text))
        chunks = self._tokenizer.tokenize_with_weights(text, return_word_ids, **kwargs)
        stand_in = self._tokenizer.tokenize_with_weights(word)
        return {key: self._replace(key, part, stand_in[key][0][1][0]) for key, part in chunks.items()}

    def _hint(self, text: str) -> None:
        """Say, once, that a name in angle brackets is nobody's here."""
        for name in strangers(text, (trigger[1:-1] for trigger in self.triggers)):
            if (name, self.triggers) not in _hinted:
                # Tokenizers of people who were applied before see this text too, but know fewer names.
                _hinted.update((name, self.triggers[: end + 1]) for end in range(len(self.triggers)))
                logging.warning(
                    "ID-EA: %s is nobody here, and stays plain text. Applied: %s.", name, ", ".join(self.triggers)
                )

    def _with_stand_ins(self, text: str, weight: float, word: str) -> str:
        """A segment of a prompt, rewritten with its weight and with stand-ins for the name."""
        stand_ins = " ".join([word] * self._count)
        parts = texts_around(text, self._person)
        written = [_weighted(stand_ins, weight)] * (2 * len(parts) - 1)
        written[::2] = [_weighted(part, weight) for part in parts]
        return "".join(written)

    def _replace(self, encoder: str, chunks: list[list[tuple]], stand_in: int) -> list[list[tuple]]:
        """The chunks with the person's vectors, in order, where the stand-in's token stands."""
        replaced, position = [], 0
        for chunk in chunks:
            entries = []
            for token, *rest in chunk:
                if not torch.is_tensor(token) and token == stand_in:
                    token = self._vectors[_encoder_key(encoder)][position % self._count]
                    position += 1
                entries.append((token, *rest))
            replaced.append(entries)
        return replaced

    def holds(self, encoder: str, chunk: list[tuple]) -> bool:
        """Whether a chunk of tokens has this person in it."""
        first = self._vectors[_encoder_key(encoder)][0]
        return any(torch.is_tensor(token) and torch.equal(token, first) for token, *_ in chunk)


class IdentityTextEncoder:
    """A CLIP's text encoder that adds, under `key`, the adapter's difference to each conditioning that has the person.

    It stands in for `clip.cond_stage_model`, which `CLIP.clone()` shares; all else is the wrapped encoder's.
    """

    def __init__(self, encoder, holds: Callable[[str, list[tuple]], bool], difference: Callable, key: str):
        self.__dict__.update(_encoder=encoder, _holds=holds, _difference=difference, _key=key)

    def __getattr__(self, name: str):
        return getattr(_wrapped(self, "_encoder", name), name)

    def __setattr__(self, name: str, value) -> None:
        setattr(self._encoder, name, value)

    def encode_token_weights(self, tokens: Mapping[str, list]) -> tuple:
        context, pooled, *extra = self._encoder.encode_token_weights(tokens)
        found = [[self._holds(encoder, chunk) for chunk in chunks] for encoder, chunks in tokens.items()]
        with_person = [any(here) for here in zip_longest(*found, fillvalue=False)]
        extra = dict(*extra)
        if any(with_person):
            extra[self._key] = self._difference(context, with_person)
        return (context, pooled, extra) if extra else (context, pooled)


def patch_clip(clip, identity: Identity, key: str, everywhere: bool = False):
    """A clone of CLIP that knows `identity`; its conditionings carry the difference (1, L, d) under `key`.

    Args:
        everywhere: whether those of prompts without the person carry one too.
    """
    clip = clip.clone()
    if identity.clip_layer != clip.layer_idx:
        logging.warning(
            "ID-EA: %s was trained on CLIP layer %s, this CLIP gives layer %s; use CLIP Set Last Layer as in training.",
            identity.trigger,
            identity.clip_layer or "default",
            clip.layer_idx or "default",
        )
    tokenizer = IdentityTokenizer(clip.tokenizer, identity)
    clip.tokenizer = tokenizer
    holds = _everything if everywhere else tokenizer.holds
    clip.cond_stage_model = IdentityTextEncoder(clip.cond_stage_model, holds, AdapterDifference(identity), key)
    return clip


def _everything(_encoder: str, _chunk: list[tuple]) -> bool:
    return True


class AdapterDifference:
    """The adapter's difference to the chunks of a conditioning that hold the person; zero elsewhere.

    The adapter sees the 77 tokens of a chunk, as in training, whatever the prompt's length.
    """

    def __init__(self, identity: Identity):
        self._identity = identity

    def __call__(self, context: Tensor, with_person: list[bool]) -> Tensor:
        if not self._identity.has_adapter:  # that the person is there still has to be known
            return torch.zeros_like(context, dtype=torch.float32)
        adapter = self._identity.build_adapter(context.device)
        grounding = self._identity.grounding.to(context.device, torch.float32)
        chunks = [
            adapter.difference(chunk.float(), grounding) if here else torch.zeros_like(chunk, dtype=torch.float32)
            for chunk, here in zip(context.split(CHUNK, dim=1), with_person)
        ]
        return torch.cat(chunks, dim=1)


def _wrapped(proxy, attribute: str, name: str):
    """What a proxy stands for; an AttributeError while `copy` is still making the proxy."""
    if attribute not in proxy.__dict__:
        raise AttributeError(name)
    return proxy.__dict__[attribute]


def _segments(text: str) -> list[tuple[str, float]]:
    """ComfyUI's own reading of `(text:weight)`: plain segments and their weights."""
    parsed = comfy.sd1_clip.token_weights(comfy.sd1_clip.escape_important(text), 1.0)
    return [(comfy.sd1_clip.unescape_important(segment), weight) for segment, weight in parsed]


def _weighted(text: str, weight: float) -> str:
    """The inverse of `_segments` for one segment."""
    if not text:
        return ""
    escaped = text.replace("(", "\\(").replace(")", "\\)")
    return f"({escaped}:{weight!r})"


def _encoder_key(encoder: str) -> str:
    """Name in identity files for ComfyUI's name in token dicts: "l" → "clip_l"."""
    return f"clip_{encoder}"
