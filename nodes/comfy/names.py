"""People's names in prompts: the tokens of `<name>` are the person's pseudo-tokens."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from numbers import Integral

import comfy.sd1_clip
import torch
from torch import Tensor

from ...idea_core.errors import ConfigError
from ...idea_core.identity.identity import Identity
from ...idea_core.text.prompts import near_misses, texts_around, unknown_names
from .notices import running_node, running_server, show_on_node, warn

_STAND_INS = ("zebra", "violin", "cactus", "kayak", "tulip", "magnet", "pickle", "lantern")  # one CLIP token each


@dataclass
class Seen:
    """What became of a person's prompts, for the MODEL to tell the user if a part of the person cannot act.

    Attributes:
        named: a prompt with the name was read.
        encoded: a text condition with the person was made.
        told: the notices that were logged, and the node and run that showed each last.
    """

    named: bool = False
    encoded: bool = False
    told: dict[str, tuple] = field(default_factory=dict)

    def tell(self, text: str, node_id: str | None = None) -> None:
        """Log a notice the first time, and show it on a node, the running one if none is given, once in each run."""
        place = (node_id or running_node(), getattr(running_server(), "last_prompt_id", None))
        if self.told.get(text) == place:
            return
        if text in self.told:
            show_on_node(text, place[0])
        else:
            warn(text, place[0])
        self.told[text] = place


@dataclass(frozen=True, eq=False)
class AppliedPerson:
    """A person as CLIP knows one.

    Attributes:
        key: of this person's difference in `AdaptedText`.
        strength: of the adapter, in the text conditions that this CLIP makes.
        everywhere: whether the adapter changes prompts without the person too.
    """

    identity: Identity
    key: str
    strength: float
    everywhere: bool = False
    seen: Seen = field(default_factory=Seen)

    @property
    def trigger(self) -> str:
        return self.identity.trigger

    def vectors(self, encoder: str) -> Tensor:
        """Pseudo-tokens (n, width) for ComfyUI's short name of an encoder, such as "l"."""
        return self.identity.tokens[f"clip_{encoder}"].float()

    def holds(self, encoder: str, chunk: Sequence) -> bool:
        """Whether a chunk of tokens has this person in it."""
        return _holds(chunk, self.vectors(encoder)[0])


class PeopleTokenizer:
    """A CLIP's tokenizer that also knows people's names. Mixed into the class of the tokenizer itself.

    Each `<name>` becomes `n` copies of a common word that the prompt does not hold, and the tokens of that word are
    then replaced. Names are looked for with ComfyUI's own reading of weights and brackets, and the copies stand in a
    group of their own, so that no chunk border falls into it. Packs that read prompts in their own way give lists.
    """

    idea_people: tuple[AppliedPerson, ...]

    def tokenize_with_weights(self, text, return_word_ids: bool = False, **kwargs) -> dict[str, list]:
        read, texts = super().tokenize_with_weights, [text] if isinstance(text, str) else list(text)
        if not all(isinstance(one, str) for one in texts):
            return read(text, return_word_ids, **kwargs)
        whole = "\n".join(texts)
        _hint(whole, self.idea_people)
        people = {p.key: p for p in self.idea_people if len(texts_around(whole, p.identity.name)) > 1}.values()
        if not people:
            return read(text, return_word_ids, **kwargs)
        words = dict(zip((person.key for person in people), _free_words(whole, len(people))))
        for person in people:
            person.seen.named = True
            put = _grouped if isinstance(text, str) else _put
            texts = [put(one, person.identity, words[person.key]) for one in texts]
        if not isinstance(text, str):
            text = copy.copy(text)
            text[:] = texts
        chunks = read(texts[0] if isinstance(text, str) else text, return_word_ids, **kwargs)
        for person in people:
            for key, part in chunks.items():
                reader = getattr(self, f"clip_{key}")
                stand_in = reader.tokenizer(words[person.key])["input_ids"][reader.tokens_start]
                chunks[key] = _replaced(part, stand_in, itertools.cycle(person.vectors(key)))
        return chunks


def _hint(text: str, people: tuple[AppliedPerson, ...]) -> None:
    """Say, once for each set of people, what in a prompt looks like a person's name and is none."""
    names = list(dict.fromkeys(person.identity.name for person in people))
    applied = ", ".join(f"<{name}>" for name in names)
    said = [
        f"No person called {name} is applied: it stays plain text. Applied: {applied}."
        for name in dict.fromkeys(unknown_names(text, names))
    ]
    for line in said + near_misses(text, names):
        people[-1].seen.tell(line)


def _free_words(text: str, count: int) -> list[str]:
    """Words to stand for people, none of which the text holds."""
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
    """A prompt of ComfyUI's own kind with stand-ins for a name, each in a group of its own, at the name's weight."""
    written = ""
    for segment, weight in _segments(text):
        first, *others = texts_around(segment, identity.name)
        written += _weighted(first, weight)
        for other in others:
            written += _weighted(" ".join([word] * identity.num_tokens), weight) + _weighted(other, weight)
    return written


def _replaced(tokens, stand_in: int, vectors: Iterator[Tensor]):
    """Nested lists of tokens, with a person's vectors in order where the stand-in's token stands."""
    if isinstance(tokens, (list, tuple)):
        return type(tokens)([_replaced(token, stand_in, vectors) for token in tokens])
    return next(vectors) if isinstance(tokens, Integral) and tokens == stand_in else tokens


def _holds(tokens, vector: Tensor) -> bool:
    """Whether nested lists of tokens have a vector in them."""
    if isinstance(tokens, (list, tuple)):
        return any(_holds(token, vector) for token in tokens)
    return torch.is_tensor(tokens) and tokens.shape == vector.shape and torch.equal(tokens.to(vector), vector)


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
