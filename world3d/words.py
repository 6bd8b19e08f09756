"""The world's language: CLIP's kind of tokenizer with a token for each of its words.

Each word is one token of OpenAI's vocabulary too, so a prompt has the same tokens there.
"""

from __future__ import annotations

import re
from pathlib import Path

from transformers import CLIPTokenizer

from idea_core.text.captions import OBJECT_TEMPLATES
from miniature import tokenizer

from .names import FIRST_NAMES, LAST_NAMES
from .scenes import BACKGROUNDS, EXPRESSIONS, HATS, PATTERNS

LENGTH = 77  # tokens of a prompt, start and end included, as in Stable Diffusion
SENTENCES = (
    "the face of a person, a man, a woman",
    "a photo of, wearing a hat and glasses, in front of an orange wall",
)


def words() -> tuple[str, ...]:
    """All words that captions of the world are made of, in lower case."""
    sentences = [*(template.replace("{}", "") for template in OBJECT_TEMPLATES), *SENTENCES]
    lists = [BACKGROUNDS, PATTERNS, HATS, EXPRESSIONS, FIRST_NAMES, LAST_NAMES]
    text = " ".join([*sentences, *map(" ".join, lists)])
    return tuple(dict.fromkeys(re.findall(r"[a-z]+|[^a-z\s]", text.lower())))  # as CLIP parts words from signs


def build_tokenizer(folder: Path) -> CLIPTokenizer:
    """The tokenizer, whose files are written to a folder first."""
    return tokenizer.build_tokenizer(folder, words(), LENGTH)
