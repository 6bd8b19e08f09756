"""The world's vocabulary: a tokenizer like CLIP's, with one token for each word."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

from idea_core.headless.diffusers.single_file import vocabulary
from idea_core.text.captions import OBJECT_TEMPLATES

from .people import first_names, last_names
from .scenes import BACKGROUNDS, EXPRESSIONS, HATS, STYLES

LENGTH = 32  # tokens of a prompt, start and end included
END_OF_WORD = "</w>"


def words() -> tuple[str, ...]:
    """All words of the world's captions, in lower case."""
    sentences = [*OBJECT_TEMPLATES, "face of a person", "a photo of, wearing a hat, on a background"]
    lists = [BACKGROUNDS, HATS, EXPRESSIONS, STYLES, first_names(), last_names()]
    text = " ".join([*(sentence.replace("{}", "") for sentence in sentences), *map(" ".join, lists)])
    return tuple(dict.fromkeys(re.findall(r"[a-z]+|[^a-z\s]", text.lower())))  # as CLIP parts words from signs


def merges(wanted: tuple[str, ...]) -> list[str]:
    """Byte pair merges that make one token of each word: the most common pair first, until every word is whole."""
    parts = {word: (*word[:-1], word[-1] + END_OF_WORD) for word in wanted}
    made = []
    while True:
        pairs = Counter(pair for letters in parts.values() for pair in zip(letters, letters[1:]))
        if not pairs:
            return made
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        made.append(" ".join(best))
        parts = {word: _merge(letters, best) for word, letters in parts.items()}


def _merge(letters: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    merged: list[str] = []
    for letter in letters:
        if merged and (merged[-1], letter) == pair:
            merged[-1] += letter
        else:
            merged.append(letter)
    return tuple(merged)


def write_tokenizer_files(folder: Path) -> None:
    """`vocab.json` and `merges.txt`, as CLIP's tokenizer reads them."""
    rules = merges(words())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary(rules)), "utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *rules, ""]), "utf-8")
