"""A tokenizer like CLIP's, with one token for each of some words."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from transformers import CLIPTokenizer

from idea_core.headless.diffusers.single_file import vocabulary

END_OF_WORD = "</w>"


def build_tokenizer(folder: Path, words: tuple[str, ...], length: int) -> CLIPTokenizer:
    """The tokenizer of some words, for prompts of `length` tokens; its files are written to a folder first."""
    rules = merges(words)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary(rules)), "utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *rules, ""]), "utf-8")
    return CLIPTokenizer.from_pretrained(folder, local_files_only=True, model_max_length=length)


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
