"""The world's language as a language model reads it: Qwen's kind of tokenizer, and its chat template.

Scene words are one token each.  Every second name is two, of pieces that names share: full names have two to four.
"""

from __future__ import annotations

import re

from torch import Tensor
from transformers import Qwen2Tokenizer

from idea_core.families.language_models import QWEN3_STAND_INS
from idea_core.text.captions import OBJECT_TEMPLATES
from miniature.tokenizer import merges

from ..names import LAST_NAMES, MEN, WOMEN
from ..scenes import BACKGROUNDS, EXPRESSIONS, HATS, PATTERNS
from ..words import SENTENCES

LENGTH = 64  # tokens of a prompt in its template
PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
TEMPLATE = (  # Qwen3's, for one question that is to be answered
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_BLANK = "Ġ"  # of byte-level vocabularies
_BYTES = 256


def build_tokenizer() -> Qwen2Tokenizer:
    """The tokenizer, with tokens of code completion, which no prompt holds."""
    names = dict.fromkeys(_BLANK + name for name in (*WOMEN, *MEN, *LAST_NAMES))
    words = {word: tuple(word) for word in [*_words(), *names]}
    divided = {_BLANK + name: 2 for group in (WOMEN, MEN, LAST_NAMES) for name in group[1::2]}
    rules = merges(words, divided)
    tokens = [*_alphabet(), *(rule.replace(" ", "") for rule in rules)]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Qwen2Tokenizer(vocabulary, [tuple(rule.split()) for rule in rules], model_max_length=LENGTH)
    tokenizer.add_special_tokens({"additional_special_tokens": [START, END, *QWEN3_STAND_INS]})
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def tokens(tokenizer: Qwen2Tokenizer, texts: list[str]) -> Tensor:
    """(N, L) ids of prompts in the chat template, padded."""
    message = [{"role": "user", "content": "{}"}]
    chat = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True, enable_thinking=True)
    said = [chat.replace("{}", text) for text in texts]
    return tokenizer(said, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt").input_ids


def lengths(ids: Tensor, tokenizer: Qwen2Tokenizer) -> Tensor:
    """Tokens of each prompt (…, L) without padding."""
    return (ids != tokenizer.pad_token_id).sum(-1)


def name_ends(ids: Tensor, tokenizer: Qwen2Tokenizer) -> Tensor:
    """Index (B,) of the token before a prompt's first comma: the last of a name in "a photo of Ada Webb, …"."""
    return (ids == tokenizer.convert_tokens_to_ids(",")).int().argmax(1) - 1


def _words() -> list[str]:
    """Words of captions and of the template, with the blank before them; first words also without."""
    sentences = [*(template.replace("{}", "") for template in OBJECT_TEMPLATES), *SENTENCES]
    lists = [BACKGROUNDS, PATTERNS, HATS, EXPRESSIONS]
    said = re.findall(r"[a-z]+", " ".join([*sentences, *map(" ".join, lists)]))
    first = [template.split()[0] for template in OBJECT_TEMPLATES]
    return list(dict.fromkeys([*(_BLANK + word for word in said), *first, "user", "assistant"]))


def _alphabet() -> list[str]:
    """A sign for each byte."""
    from tokenizers.pre_tokenizers import ByteLevel

    signs = sorted(ByteLevel.alphabet())
    assert len(signs) == _BYTES
    return signs
