"""CLIP's tokenizer, for checkpoints in one file, which hold no vocabulary. All of ours use OpenAI's."""

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
    packed = resources.files(__package__).joinpath("data/clip_merges.txt.gz").read_bytes()
    merges = gzip.decompress(packed).decode("utf-8").splitlines()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "vocab.json").write_text(json.dumps(vocabulary(merges)), "utf-8")
        Path(folder, "merges.txt").write_text("\n".join(["#version: 0.2", *merges]), "utf-8")
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True, model_max_length=CONTEXT_LENGTH)
    tokenizer.pad_token = pad  # set afterwards: as an argument it would turn each "!" of a text into padding
    return tokenizer


def vocabulary(merges: list[str]) -> dict[str, int]:
    """Token → id: a letter for each byte, the same at a word's end, the result of each merge, two special tokens."""
    # GPT-2's table: a printable letter for each of the 256 bytes, those that are printable themselves first.
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = [*map(chr, printable), *(chr(256 + number) for number in range(256 - len(printable)))]
    merged = [merge.replace(" ", "") for merge in merges]
    tokens = [*letters, *(letter + "</w>" for letter in letters), *merged, _START, _END]
    return {token: number for number, token in enumerate(tokens)}
