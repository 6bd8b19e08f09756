"""People's names in prompts: the person's pseudo-tokens replace `<name>`."""

from __future__ import annotations

import copy
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from numbers import Integral
from typing import Any

import comfy.sd1_clip
from torch import Tensor

from ...idea_core.errors import ConfigError
from ...idea_core.identity.identity import Identity
from ...idea_core.text.prompts import near_misses, texts_around, unknown_names, with_name
from .notices import running_node, running_server, show_on_node
from .stand_ins import signed, spliced, stands_for

logger = logging.getLogger(__name__)

_STAND_INS = ("zebra", "violin", "cactus", "kayak", "tulip", "magnet", "pickle", "lantern")  # one CLIP token each


@dataclass
class Seen:
    """What happened to a person's prompts. The MODEL tells the user if a part of the person cannot act.

    Attributes:
        named: a prompt with the name was tokenized.
        encoded: a prompt with the person was encoded.
        shown: each logged notice, and the node and run that showed it last.
    """

    named: bool = False
    encoded: bool = False
    shown: dict[str, tuple] = field(default_factory=dict)

    def tell(self, text: str, node_id: str | None = None) -> None:
        """Log a notice the first time. Show it once in each run on a node; without `node_id` on the running one."""
        place = (node_id or running_node(), getattr(running_server(), "last_prompt_id", None))
        if self.shown.get(text) != place:
            if text not in self.shown:
                logger.warning("ID-EA: %s", text)
            show_on_node(text, place[0])
            self.shown[text] = place


@dataclass(frozen=True, eq=False)
class AppliedPerson:
    """A person in a CLIP.

    Attributes:
        key: of this person's difference in `AdaptedText`.
        strength: of the adapter in this CLIP's text conditions.
        everywhere: whether the adapter also changes prompts without the person.
    """

    identity: Identity
    key: str
    strength: float
    everywhere: bool = False
    seen: Seen = field(default_factory=Seen)

    @property
    def trigger(self) -> str:
        return self.identity.trigger

    def vectors(self, encoder: str) -> list[Tensor]:
        """Pseudo-tokens (width,) of an encoder by ComfyUI's name, such as "l", with this person's signature.

        Empty: the encoder reads none of them.
        """
        tokens = self.identity.tokens
        own = tokens.get(f"clip_{encoder}", tokens.get(encoder))
        return [] if own is None else signed(own.float(), self.key)

    def holds(self, encoder: str, chunk: Sequence) -> bool:
        """Whether a chunk of tokens holds this person."""
        first = self.vectors(encoder)[:1]
        return bool(first) and _any(chunk, lambda token: stands_for(token, first, self.key))


class PeopleTokenizer:
    """A CLIP's tokenizer that also knows people's names. It is mixed into the tokenizer's own class.

    Each `<name>` becomes `n` copies of a common word that the prompt does not hold. The person's vectors then replace
    the word's tokens. ComfyUI's own parser of weights and brackets finds the names. The copies form a group, so that no
    chunk border splits them. Packs with their own prompt parser pass lists. Language models have tokens for it, which
    no prompt holds (`stand_ins`).
    """

    idea_people: tuple[AppliedPerson, ...]

    def tokenize_with_weights(self, text, return_word_ids: bool = False, **kwargs) -> dict[str, list]:
        read, texts = super().tokenize_with_weights, [text] if isinstance(text, str) else list(text)
        if not all(isinstance(one, str) for one in texts):
            return read(text, return_word_ids, **kwargs)
        named = [with_name(one, (person.identity.name for person in self.idea_people)) for one in texts]
        if named != texts:
            text, texts = _with_texts(text, named), named
        whole = "\n".join(texts)
        _hint(whole, self.idea_people)
        people = {p.key: p for p in self.idea_people if len(texts_around(whole, p.identity.name)) > 1}.values()
        if not people:
            return read(text, return_word_ids, **kwargs)
        for person in people:
            person.seen.named = True
        base = self.idea_people[0].identity.base
        if base.transformer is not None:
            if not isinstance(text, str):  # another pack's own prompt parser, which is for CLIP
                return read(text, return_word_ids, **kwargs)
            named = [{encoder: person.vectors(encoder) for encoder in base.encoders} for person in people]
            own = partial(read, return_word_ids=return_word_ids, **kwargs)
            return spliced(own, self, base, _parts(text, [person.identity.name for person in people]), named)
        words = dict(zip((person.key for person in people), _free_words(whole, len(people))))
        for person in people:
            put = _grouped if isinstance(text, str) else _put
            texts = [put(one, person.identity, words[person.key]) for one in texts]
        chunks = read(_with_texts(text, texts), return_word_ids, **kwargs)
        for person in people:
            for key, part in chunks.items():
                reader = getattr(self, f"clip_{key}")
                stand_in = reader.tokenizer(words[person.key])["input_ids"][reader.tokens_start]
                chunks[key] = _replaced(part, stand_in, itertools.cycle(person.vectors(key)))
        return chunks


def _with_texts(text, texts: list[str]):
    """A prompt, or another pack's list of prompts, with other texts."""
    if isinstance(text, str):
        return texts[0]
    text = copy.copy(text)
    text[:] = texts
    return text


def _hint(text: str, people: tuple[AppliedPerson, ...]) -> None:
    """Tell the user, once for each set of people, which words of a prompt look like a person's name and are none."""
    names = list(dict.fromkeys(person.identity.name for person in people))
    applied = ", ".join(f"<{name}>" for name in names)
    for name in dict.fromkeys(unknown_names(text, names)):
        people[-1].seen.tell(f"No person called {name} is applied: it stays plain text. Applied: {applied}.")
    for line in near_misses(text, names):
        people[-1].seen.tell(line)


def _parts(text: str, names: Sequence[str]) -> list[str | int]:
    """A prompt's texts, and the numbers of the people who are named between them."""
    parts: list[str | int] = [text]
    for number, name in enumerate(names):
        split: list[str | int] = []
        for part in parts:
            texts = texts_around(part, name) if isinstance(part, str) else [part]
            for place, piece in enumerate(texts):
                split += [number, piece] if place else [piece]
        parts = split
    return [part for part in parts if part != ""]


def _free_words(text: str, count: int) -> list[str]:
    """Words that stand for people and do not occur in the text."""
    free = [word for word in _STAND_INS if word not in text.lower()]
    if len(free) < count:
        raise ConfigError(
            f"a prompt without {count} of {', '.join(_STAND_INS)}",
            f"only {len(free)} of them free",
            "Leave some of these words out.",
        )
    return free[:count]


def _put(text: str, identity: Identity, word: str) -> str:
    """A prompt with stand-ins for a name."""
    return " ".join([word] * identity.num_tokens).join(texts_around(text, identity.name))


def _grouped(text: str, identity: Identity, word: str) -> str:
    """A prompt in ComfyUI's syntax with stand-ins for a name, each in a group of its own, at the name's weight."""
    stand_ins = " ".join([word] * identity.num_tokens)
    return "".join(
        _weighted(stand_ins, weight).join(_weighted(part, weight) for part in texts_around(segment, identity.name))
        for segment, weight in _segments(text)
    )


def _replaced(tokens, stand_in: int, vectors: Iterator[Tensor]):
    """Nested lists of tokens; a person's vectors, in order, replace the stand-in's token."""
    if isinstance(tokens, (list, tuple)):
        return type(tokens)([_replaced(token, stand_in, vectors) for token in tokens])
    return next(vectors) if isinstance(tokens, Integral) and tokens == stand_in else tokens


def _any(tokens, is_one: Callable[[Any], bool]) -> bool:
    """Whether one of nested lists of tokens is such a one."""
    if isinstance(tokens, (list, tuple)):
        return any(_any(token, is_one) for token in tokens)
    return is_one(tokens)


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
