"""Names of people and of files: what may be a person's name, and when two spellings are the same."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

LONGEST = 64
_SIGNS = frozenset("_-'’·・\u200c\u200d")  # the last two shape letters in Persian and Indian names
_FIRST = "LN"  # Unicode's letters and numbers; marks, "M", follow the letter that they change


def one_form(text: str) -> str:
    """Unicode's normal form C: "é" is one character, however the keyboard or file system spells it."""
    return unicodedata.normalize("NFC", text)


def alike(text: str) -> str:
    """A form that equal names share, whatever their case and Unicode's normal form."""
    return one_form(unicodedata.normalize("NFD", text).casefold())


def is_name_character(character: str) -> bool:
    """Whether a name may have `character` in it."""
    return unicodedata.category(character)[0] in _FIRST + "M" or character in _SIGNS


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
    """`path` as the file system spells it; parts that do not exist are in normal form C.

    A Mac may write "é" as two characters, which other systems take for another name than "é" as one.
    """
    if os.path.exists(path) or str(path).isascii():
        return path
    *folders, name = path.parts
    folder = as_on_disk(Path(*folders)) if folders else Path()
    name = one_form(name)
    try:
        return folder / next((entry for entry in os.listdir(folder) if one_form(entry) == name), name)
    except OSError:
        return folder / name
