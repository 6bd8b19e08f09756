"""Names of people and of files: what may be a person's name, and when two spellings are the same."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

LONGEST = 64
_SIGNS = frozenset("_-'’·・\u200c\u200d")  # the last two shape letters in Persian and Indian names
_FIRST = "LN"  # Unicode's letters and numbers; marks, "M", stand behind the letter that they change


def one_form(text: str) -> str:
    """Unicode's normal form C: "é" is one character, however the keyboard or file system spells it."""
    return unicodedata.normalize("NFC", text)


def alike(text: str) -> str:
    """What equal names have in common: upper and lower case, and Unicode's normal forms, do not count."""
    return one_form(unicodedata.normalize("NFD", text).casefold())


def is_name_character(character: str) -> bool:
    return unicodedata.category(character)[0] in (*_FIRST, "M") or character in _SIGNS


def is_name(text: str) -> bool:
    """Whether `text` can be a trigger: letters of any script with their marks, digits, and a few signs."""
    text = one_form(text)
    return (
        0 < len(text) <= LONGEST
        and (unicodedata.category(text[0])[0] in _FIRST or text[0] == "_")
        and text[-1] not in "\u200c\u200d"
        and all(map(is_name_character, text))
    )


def as_on_disk(path: Path) -> Path:
    """`path` as the file system spells it, as far as it is there; what is not, in normal form C.

    A Mac may write "é" as two characters, and other systems tell such a name from one of one character.
    """
    if os.path.exists(path) or str(path).isascii():
        return path
    *folders, name = path.parts
    folder = as_on_disk(Path(*folders)) if folders else Path()
    name = one_form(name)
    try:
        there = os.listdir(folder)
    except OSError:
        there = []
    return folder / next((other for other in there if one_form(other) == name), name)
