"""The world's language: CLIP's kind of tokenizer with a token for each of its words.

Each word is one token of OpenAI's vocabulary too, so a prompt has the same tokens there.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

from transformers import CLIPTokenizer

from idea_core.headless.diffusers.single_file import vocabulary
from idea_core.text.captions import OBJECT_TEMPLATES

from .names import FIRST_NAMES, LAST_NAMES
from .scenes import BACKGROUNDS, EXPRESSIONS, HATS, PATTERNS

LENGTH = 77  # tokens of a prompt, start and end included, as in Stable Diffusion
SENTENCES = (
    "the face of a person, a man, a woman",
    "a photo of, wearing a hat and glasses, in front of an orange wall",
)
END_OF_WORD = "</w>"


def words() -> tuple[str, ...]:
    """All words that captions of the world are made of, in lower case."""
    sentences = [*(template.replace("{}", "") for template in OBJECT_TEMPLATES), *SENTENCES]
    lists = [BACKGROUNDS, PATTERNS, HATS, EXPRESSIONS, FIRST_NAMES, LAST_NAMES]
    text = " ".join([*sentences, *map(" ".join, lists)])
    return tuple(dict.fromkeys(re.findall(r"[a-z]+|[^a-z\s]", text.lower())))  # as CLIP parts words from signs


def merges(wanted: tuple[str, ...]) -> list[str]:
    """Byte pair merges that make one token of each word: the commonest pair first, until no word is in parts."""
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


def build_tokenizer(folder: Path) -> CLIPTokenizer:
    """The tokenizer, whose `vocab.json` and `merges.txt` are written to a folder first."""
    rules = merges(words())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary(rules)), "utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *rules, ""]), "utf-8")
    return CLIPTokenizer.from_pretrained(folder, local_files_only=True, model_max_length=LENGTH)
