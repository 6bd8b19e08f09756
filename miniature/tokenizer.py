"""A tokenizer like CLIP's, with one token for each of some words."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from transformers import CLIPTokenizer

from idea_core.headless.diffusers.single_file import vocabulary

END_OF_WORD = "</w>"


def build_tokenizer(folder: Path, words: tuple[str, ...], length: int) -> CLIPTokenizer:
    """The tokenizer of some words, for prompts of `length` tokens; its files are written to a folder first."""
    rules = merges({word: (*word[:-1], word[-1] + END_OF_WORD) for word in words})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary(rules)), "utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *rules, ""]), "utf-8")
    return CLIPTokenizer.from_pretrained(folder, local_files_only=True, model_max_length=length)


def merges(letters: Mapping[str, tuple[str, ...]], pieces: Mapping[str, int] = {}) -> list[str]:
    """Byte pair merges: the most common pair first, until every word is whole.

    Args:
        letters: word → what it is made of.
        pieces: word → number of tokens at which it is left, if that is not 1.
    """
    parts, made = dict(letters), []
    while True:
        unfinished = [own for word, own in parts.items() if len(own) > pieces.get(word, 1)]
        pairs = Counter(pair for own in unfinished for pair in zip(own, own[1:]))
        if not pairs:
            return made
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        made.append(" ".join(best))
        parts = {word: _merge(own, best) for word, own in parts.items()}


def _merge(letters: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    merged: list[str] = []
    for letter in letters:
        if merged and (merged[-1], letter) == pair:
            merged[-1] += letter
        else:
            merged.append(letter)
    return tuple(merged)
