"""People in prompts: `<name>`, or `{}` where only one person is meant."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TypeVar

from .captions import PLACEHOLDER
from .errors import ConfigError

_MENTION = re.compile(r"\{\}|<(\w[\w-]{0,63})>")
Token = TypeVar("Token")


def split_prompt(prompt: str, names: Sequence[str]) -> list[str | int]:
    """A prompt's texts, and between them the indices of the people named there, in order.

    Names are found in upper and lower case; `<…>` that names nobody stays text.

    Raises:
        ConfigError: `{}` with several people.
    """
    index = {name.lower(): number for number, name in enumerate(names)}
    parts: list[str | int] = []
    end = 0
    for match in _MENTION.finditer(prompt):
        if match[0] == PLACEHOLDER and len(names) != 1:
            raise ConfigError(
                f"one identity for {PLACEHOLDER}",
                f"{len(names)} in {prompt!r}",
                f"Name each person: {', '.join(f'<{name}>' for name in names) or '<name>'}.",
            )
        person = 0 if match[0] == PLACEHOLDER else index.get(match[1].lower())
        if person is not None:
            parts += [prompt[end : match.start()], person]
            end = match.end()
    return [part for part in [*parts, prompt[end:]] if part != ""]


def strangers(prompt: str, names: Iterable[str]) -> list[str]:
    """Names in angle brackets that nobody has."""
    known = {name.lower() for name in names}
    return [match[0] for match in _MENTION.finditer(prompt) if match[1] and match[1].lower() not in known]


def without_people(prompt: str) -> str:
    """The prompt with its people left out, for a measure of what else it asks for."""
    return " ".join(_MENTION.sub(" ", prompt).split())


def in_chunks(groups: Iterable[Sequence[Token]], size: int) -> list[list[Token]]:
    """Groups of tokens in chunks of at most `size`; no border falls into a group. At least one chunk."""
    chunks: list[list[Token]] = [[]]
    for group in groups:
        if chunks[-1] and len(chunks[-1]) + len(group) > size:
            chunks.append([])
        chunks[-1].extend(group)
    return chunks
