"""CLIP's tokenizer, for checkpoints in one file: those hold no vocabulary, and all of ours share OpenAI's."""

from __future__ import annotations

import gzip
import json
import tempfile
from importlib import resources
from pathlib import Path

from transformers import CLIPTokenizer

CONTEXT_LENGTH = 77
_START, _END = "<|startoftext|>", "<|endoftext|>"


def clip_tokenizer(pad: str = _END) -> CLIPTokenizer:
    """The tokenizer of CLIP-L (padded with its end token), OpenCLIP-H and OpenCLIP-G (padded with "!")."""
    merges = _merges()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "vocab.json").write_text(json.dumps(vocabulary(merges)), "utf-8")
        Path(folder, "merges.txt").write_text("\n".join(["#version: 0.2", *merges]), "utf-8")
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True, model_max_length=CONTEXT_LENGTH)
    tokenizer.pad_token = pad  # set afterwards: given at once, "!" in a text would become padding too
    return tokenizer


def _merges() -> list[str]:
    packed = resources.files(__package__).joinpath("data/clip_merges.txt.gz").read_bytes()
    return gzip.decompress(packed).decode("utf-8").splitlines()


def vocabulary(merges: list[str]) -> dict[str, int]:
    """Token → id: the bytes' letters, the same at a word's end, what each merge makes, and the two special tokens."""
    letters = _byte_letters()
    made = [merge.replace(" ", "") for merge in merges]
    tokens = [*letters, *(letter + "</w>" for letter in letters), *made, _START, _END]
    return {token: number for number, token in enumerate(tokens)}


def _byte_letters() -> list[str]:
    """A printable letter for each of the 256 bytes, those that are printable themselves first (GPT-2's table)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = 256 - len(printable)
    return [chr(code) for code in printable] + [chr(256 + number) for number in range(others)]
