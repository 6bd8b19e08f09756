"""The world's vocabulary: a tokenizer like CLIP's, with one token for each word."""

from __future__ import annotations

import re

from idea_core.text.captions import OBJECT_TEMPLATES

from .people import first_names, last_names
from .scenes import BACKGROUNDS, EXPRESSIONS, HATS, STYLES

LENGTH = 32  # tokens of a prompt, start and end included


def words() -> tuple[str, ...]:
    """All words of the world's captions, in lower case."""
    sentences = [*OBJECT_TEMPLATES, "face of a person", "a photo of, wearing a hat, on a background"]
    lists = [BACKGROUNDS, HATS, EXPRESSIONS, STYLES, first_names(), last_names()]
    text = " ".join([*(sentence.replace("{}", "") for sentence in sentences), *map(" ".join, lists)])
    return tuple(dict.fromkeys(re.findall(r"[a-z]+|[^a-z\s]", text.lower())))  # as CLIP parts words from signs
