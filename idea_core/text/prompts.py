"""People in prompts: `<name>`, or `{}` where only one person is meant."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from typing import NamedTuple, TypeVar

from ..errors import ConfigError
from .captions import PLACEHOLDER
from .emphasis import weighted_texts
from .names import alike, is_name, is_name_character

_MENTION = re.compile(r"\{\}|<(?P<bracketed>[^<>]{1,300})>|embedding:(?=(?P<embedding>\S+))", re.IGNORECASE)
_POSSESSIVE = re.compile(r"['’]s$")
_OPEN, _CLOSE = "<＜〈《⟨‹«", ">＞〉》⟩›»"
_BRACKETED = re.compile(rf"(?:[{_OPEN}]|&lt;)([^{_OPEN}{_CLOSE}&]{{1,200}})(?:[{_CLOSE}]|&gt;)", re.IGNORECASE)
_PREFIX = re.compile(r"(lora|lyco|embedding)\s*:", re.IGNORECASE)
_WEIGHT = re.compile(r"\d*\.?\d+")
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")  # Thai, Lao, Burmese, Khmer
Token = TypeVar("Token")
ANYONE = "person"
"""`<person>` in a prompt names the only person that is applied, whatever the name."""


class Mention(NamedTuple):
    """Where a prompt may name a person.

    Attributes:
        start, end: of its characters in the prompt.
        name: as the prompt spells it; "" for `{}`.
        bracketed: in angle brackets, not as ComfyUI's `embedding:name`.
    """

    start: int
    end: int
    name: str
    bracketed: bool = True

    def of(self, person: str) -> bool:
        """Whether `person` is named, in upper or lower case and in any of Unicode's normal forms."""
        return alike(self.name) == alike(person)


def mentions(prompt: str) -> Iterator[Mention]:
    """Each `{}`, `<name>` and `embedding:name`, in order, known or not."""
    for match in _MENTION.finditer(prompt):
        bracketed, run = match["bracketed"], match["embedding"]
        if match[0] == PLACEHOLDER:
            yield Mention(match.start(), match.end(), "")
        elif bracketed and is_name(bracketed):
            yield Mention(match.start(), match.end(), bracketed)
        elif run:
            name = "".join(takewhile(lambda sign: is_name_character(sign) or sign == ".", run))
            name = _POSSESSIVE.sub("", name)
            if is_name(name):
                yield Mention(match.start(), match.start("embedding") + len(name), name, bracketed=False)


def with_name(prompt: str, names: Iterable[str]) -> str:
    """The prompt with the name in place of `<person>`, if `names` are one person's and not "person"."""
    known = {alike(name): name for name in names}
    if len(known) != 1 or alike(ANYONE) in known:
        return prompt
    (name,) = known.values()
    places = [mention for mention in mentions(prompt) if mention.bracketed and mention.of(ANYONE)]
    return f"<{name}>".join(_texts_between(prompt, places))


def split_prompt(prompt: str, names: Sequence[str]) -> list[str | int]:
    """A prompt's texts, and between them the indices of the people named there, in order.

    Names match in upper and lower case and in any normal form; unknown names stay text. `<person>` is the only person.
    Raises ConfigError for `{}` with several people.
    """
    prompt = with_name(prompt, names)
    index = {alike(name): number for number, name in enumerate(names)}
    parts: list[str | int] = []
    end = 0
    for mention in mentions(prompt):
        if not mention.name and len(names) != 1:
            raise ConfigError(
                f"one identity for {PLACEHOLDER}",
                f"{len(names)} in {prompt!r}",
                f"Name each person: {', '.join(f'<{name}>' for name in names) or '<name>'}.",
            )
        person = index.get(alike(mention.name)) if mention.name else 0
        if person is not None:
            parts += [prompt[end : mention.start], person]
            end = mention.end
    return [part for part in [*parts, prompt[end:]] if part != ""]


def texts_around(prompt: str, person: str) -> list[str]:
    """The texts before, between and after the mentions of `person`; the prompt alone if there are none."""
    return _texts_between(prompt, (mention for mention in mentions(prompt) if mention.of(person)))


def without_people(prompt: str) -> str:
    """The prompt without its people and weights, for a measure of what else it asks for."""
    texts = [part for text, _weight in weighted_texts(prompt) for part in _texts_between(text, mentions(text))]
    return " ".join(" ".join(texts).split())


def unknown_names(prompt: str, names: Iterable[str]) -> list[str]:
    """Names in angle brackets that nobody has."""
    names = list(names)
    prompt, known = with_name(prompt, names), {alike(name) for name in names}
    named = [mention.name for mention in mentions(prompt) if mention.name and mention.bracketed]
    return [f"<{name}>" for name in named if alike(name) not in known]


def near_misses(text: str, names: Iterable[str]) -> list[str]:
    """A sentence for each part of `text` that was probably meant for a person but names nobody.

    Such parts are a name in other brackets ("＜alice＞", "&lt;alice&gt;"), with blanks or a weight in them ("<alice >",
    "<alice:1.2>", "<lora:alice:1>"), or, if the text names nobody, without brackets.

    Args:
        names: of the people, without brackets.
    """
    names = list(names)
    text, known = with_name(text, names), {_loosely(name): name for name in names}
    meant: dict[str, str] = {}
    tried: set[str] = set()

    def look(match: re.Match) -> str:
        spelled, weight = _inner(match[1])
        name = known.get(_loosely(spelled))
        if name is not None:
            tried.add(name)
            if alike(match[0]) != alike(f"<{name}>"):
                meant[match[0]] = f"(<{name}>:{weight})" if weight else f"<{name}>"
        return " "

    rest = alike(_BRACKETED.sub(look, text))
    if not any(mention.of(name) for mention in mentions(text) for name in known.values()):
        meant |= {name: f"<{name}>" for name in known.values() if name not in tried and _stands_bare(name, rest)}
    return [f"{spelled} stays plain text. For the person write {right}." for spelled, right in meant.items()]


def in_chunks(groups: Iterable[Sequence[Token]], size: int) -> list[list[Token]]:
    """Groups of tokens in chunks of at most `size`, at least one chunk; no group is cut."""
    chunks: list[list[Token]] = [[]]
    for group in groups:
        if chunks[-1] and len(chunks[-1]) + len(group) > size:
            chunks.append([])
        chunks[-1].extend(group)
    return chunks


def _texts_between(prompt: str, places: Iterable[Mention]) -> list[str]:
    texts, end = [], 0
    for place in places:
        texts.append(prompt[end : place.start])
        end = place.end
    return [*texts, prompt[end:]]


def _loosely(name: str) -> str:
    """`name` without what a keyboard or a web page may make of its signs."""
    return alike(unicodedata.normalize("NFKC", name)).replace("’", "'")


def _inner(text: str) -> tuple[str, str]:
    """Name and weight ("" for none or 1) in the text between brackets, as other programs write them."""
    text = text.strip(" \t\n\\")
    name, *rest = re.split(r"\s*[:：]\s*", _PREFIX.sub("", text, count=1).strip())
    weight = rest[0] if rest and _WEIGHT.fullmatch(rest[0]) else ""
    return name, "" if weight and float(weight) == 1 else weight


def _stands_bare(name: str, text: str) -> bool:
    """Whether `name` is a word of `text`, both as `alike` makes them; not as `embedding:name`."""
    for match in re.finditer(re.escape(alike(name)), text):
        around = text[match.start() - 1 : match.start()] + text[match.end() : match.end() + 1]
        if not any(map(_continues_word, around)) and not text[: match.start()].endswith("embedding:"):
            return True
    return False


def _continues_word(character: str) -> bool:
    """Whether a word goes on with it; an apostrophe may begin "'s", and some scripts put no blanks between words."""
    if character in "'’" or _UNSPACED.match(character) or unicodedata.east_asian_width(character) == "W":
        return False
    return is_name_character(character)
