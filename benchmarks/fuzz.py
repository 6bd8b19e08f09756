"""Files from strangers: what the pack's readers do with damaged and hostile ones.

    python -m benchmarks.fuzz [--inputs 100000] [--seed 0]

Good files of every kind are mutated: bytes flipped, cut, moved and repeated; headers of safetensors with other types,
shapes, places and metadata; numbers that are none; pickles that run code. Each input has to end, within the limits, in
a value without NaN and Inf or in the package's own error. Prints a table; what went otherwise is kept in `--keep`, and
the command fails.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

from idea_core import BaseModelRef, GatedAttention, Identity
from idea_core.enhancers.model import EnhancerModel
from idea_core.enhancers.pretrained import PretrainedEnhancer
from idea_core.errors import IdeaError
from idea_core.faces import IdEmbeds
from idea_core.faces.embeds import load_embeds, save_embeds
from idea_core.files.textfile import read_text
from idea_core.identity.convert import read_kv, read_person, write_kv, write_person
from idea_core.identity.describe import describe, in_lines, last_likeness
from idea_core.identity.thumbnail import decode_thumbnail, encode_thumbnail
from idea_core.method.anchor import parse_names

SECONDS, MEGABYTES = 2.0, 500  # of one input
FINE = ("read", "refused")
LAYER = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k"
DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I8", "U8", "BOOL", "F8_E4M3", "F4", "X", "", None, 3)
NUMBERS = (0, 1, -1, 2, 127, 2**31 - 1, 2**31, 2**53, 2**63 - 1, 2**64, -(2**63), 0.5, 1e308, float("nan"))
TEXTS = (
    "",
    "\0",
    "../../../etc/passwd",
    "C:\\con",
    "a" * 300,
    "金智媛",
    "‮drow",
    "[" * 50_000,
    "{" * 1000,
    "9" * 5000,
    "NaN",
    "-Infinity",
    "null",
    "[]",
    "{}",
    '{"losses": [1e999]}',
    "true",
    "\ud83d",
    "%s%n",
    "<script>",
)


@dataclass
class Witness:
    """A pickle that makes a folder when it is unpickled."""

    path: str

    def __reduce__(self):
        return os.mkdir, (self.path,)


@dataclass(frozen=True)
class Kind:
    """Files of one kind.

    Attributes:
        good: the bytes of an undamaged file.
        read: from a path; what it gives is used as a program would.
    """

    good: bytes
    read: Callable[[Path], Any]
    ending: str = ".safetensors"


def mini_identity() -> Identity:
    """A small person of random weights, with all that a file may hold."""
    from PIL import Image

    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * 0.1

    return Identity(
        name="alice",
        base_ref=BaseModelRef("mini", "eps", None, 8, 0.4, "base.safetensors"),
        tokens={"clip_mini": drawn(2, 128)},
        anchor=drawn(2, 128),
        grounding=drawn(2, 128),
        id_embeds=drawn(512),
        adapter={key: drawn(*tensor.shape) for key, tensor in GatedAttention(128).state_dict().items()},
        kv={f"{LAYER}.lora_up.weight": drawn(64, 2), f"{LAYER}.lora_down.weight": drawn(2, 128)},
        training={"steps": 25, "losses": [1.0, 0.5], "photos": 4},
        thumbnail=encode_thumbnail(Image.new("RGB", (64, 64), (200, 30, 40))),
    )


def kinds(folder: Path) -> dict[str, Kind]:
    person = mini_identity()
    sd1 = Identity("bob", BaseModelRef("sd1", "eps", None, 8, 0.4), {"clip_l": torch.randn(2, 768) * 0.02})
    face = IdEmbeds(torch.nn.functional.normalize(torch.randn(3, 512), dim=1), torch.ones(3))
    enhancer = PretrainedEnhancer(
        person.base_ref, EnhancerModel(*[{"clip_mini": torch.randn(2, 128) * 0.1}] * 3).state_dict()
    )
    names = folder / "names.txt"
    names.write_text("Brad Pitt\nEmma Stone\n김지원\n", "utf-8")

    def kind(path: Path, read: Callable[[Path], Any]) -> Kind:
        return Kind(path.read_bytes(), read, path.suffix)

    return {
        "identity": kind(person.save(folder / "identity.safetensors"), _use_identity),
        "ID-Enhancer": kind(enhancer.save(folder / "enhancer.safetensors"), _use_enhancer),
        "face embeddings": kind(save_embeds(face, folder / "face.safetensors"), lambda path: vars(load_embeds(path))),
        "published .bin": kind(write_person(sd1, folder / "published.bin", "published"), _use_tokens),
        "A1111 .pt": kind(write_person(sd1, folder / "a1111.pt", "a1111"), _use_tokens),
        "diffusers .safetensors": kind(write_person(sd1, folder / "diffusers.safetensors", "diffusers"), _use_tokens),
        "LoRA": kind(write_kv(_of_sd1(person), folder / "lora.safetensors"), lambda path: read_kv(path)[0]),
        "names": kind(names, lambda path: parse_names(read_text(path))),
    }


def _of_sd1(person: Identity) -> Identity:
    kv = {f"{LAYER}.lora_up.weight": torch.randn(320, 2), f"{LAYER}.lora_down.weight": torch.randn(2, 768)}
    return Identity("bob", BaseModelRef("sd1", "eps", None, 8, 0.4), {"clip_l": torch.randn(2, 768)}, kv=kv)


def _use_identity(path: Path) -> Mapping[str, Any]:
    identity = Identity.load(path)
    in_lines(describe(identity))
    last_likeness(identity.training)
    decode_thumbnail(identity.thumbnail)
    return identity.tensors()


def _use_enhancer(path: Path) -> Mapping[str, Any]:
    face = torch.nn.functional.normalize(torch.ones(512), dim=0)
    return PretrainedEnhancer.load(path).identity("alice", face).tensors()


def _use_tokens(path: Path) -> Mapping[str, Any]:
    return read_person(path).tokens


# --- mutations ---------------------------------------------------------------------------------------------------


def mutated(data: bytes, chance: random.Random, witness: Path) -> bytes:
    """Another file: some changes, one after the other."""
    if chance.random() < 0.02:
        return _with_code(chance, witness)
    changes = [_flip, _cut, _repeat, _swap, _zero, _not_numbers]
    if data[8:9] == b"{":
        changes += [_header] * 4
    for _ in range(chance.randint(1, 3)):
        data = chance.choice(changes)(data, chance)
    return data


def _flip(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        if changed:
            # Half of the time near the start, where headers are.
            end = min(len(changed), 200) if chance.random() < 0.5 else len(changed)
            changed[chance.randrange(end)] = chance.randrange(256)
    return bytes(changed)


def _cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def _repeat(data: bytes, chance: random.Random) -> bytes:
    start, end = sorted(chance.randrange(len(data) + 1) for _ in range(2))
    return data[:end] + data[start:end][:4096] + data[end:]


def _swap(data: bytes, chance: random.Random) -> bytes:
    a, b, c = sorted(chance.randrange(len(data) + 1) for _ in range(3))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def _zero(data: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(data) + 1)
    length = min(chance.choice((1, 8, 64, 4096)), len(data) - start)
    return data[:start] + bytes([chance.choice((0, 255))]) * length + data[start + length :]


def _not_numbers(data: bytes, chance: random.Random) -> bytes:
    """NaN and Inf, in half and in single precision, among the weights."""
    pattern = chance.choice((b"\x00\x7e", b"\x00\x7c", b"\x00\xfc", b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f"))
    start = len(data) - chance.randrange(len(data) // 2 + 1) // 4 * 4
    return data[:start] + pattern + data[start + len(pattern) :]


def _header(data: bytes, chance: random.Random) -> bytes:
    """A safetensors file with another header."""
    size = int.from_bytes(data[:8], "little")
    try:
        header, rest = json.loads(data[8 : 8 + size]), data[8 + size :]
    except (ValueError, RecursionError):
        return _flip(data, chance)
    if not isinstance(header, dict) or not header:
        return data
    key = chance.choice(list(header))
    entry = header[key]
    if key == "__metadata__" and isinstance(entry, dict) and entry:
        entry[chance.choice(list(entry))] = chance.choice((*TEXTS, *map(str, NUMBERS)))
    elif isinstance(entry, dict) and "shape" in entry and chance.random() < 0.8:
        change = chance.choice(("dtype", "shape", "data_offsets"))
        if change == "dtype":
            entry["dtype"] = chance.choice(DTYPES)
        elif isinstance(entry.get(change), list) and entry[change]:
            entry[change][chance.randrange(len(entry[change]))] = chance.choice(NUMBERS)
    elif chance.random() < 0.5:
        del header[key]
    else:
        header[chance.choice(TEXTS)] = header.pop(key)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    size = len(text) if chance.random() < 0.9 else chance.choice((0, 2**40, 2**63, 2**64 - 1))
    return size.to_bytes(8, "little") + text + rest


def _with_code(chance: random.Random, witness: Path) -> bytes:
    """A pickle that runs code, bare or among weights in torch's own archive."""
    payload = Witness(str(witness / str(chance.random())))
    if chance.random() < 0.5:
        return pickle.dumps({"alice": payload}, protocol=chance.choice((2, 4)))
    with tempfile.TemporaryFile() as file:
        torch.save({"alice": torch.zeros(2, 768), "more": payload}, file)
        file.seek(0)
        return file.read()


# --- the run -----------------------------------------------------------------------------------------------------


@contextmanager
def limited() -> Iterator[None]:
    """No more memory than some for what is done inside (Linux)."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + MEGABYTES * 10**6, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def outcome(kind: Kind, path: Path) -> str:
    """What became of one input: "read", "refused", or what is wrong."""
    start = time.process_time()
    try:
        with limited():
            found = kind.read(path)
        result = "read"
    except IdeaError:
        found, result = {}, "refused"
    except Exception:
        return traceback.format_exc()
    values = found.values() if isinstance(found, Mapping) else ()
    if any(torch.is_tensor(value) and value.is_floating_point() and not value.isfinite().all() for value in values):
        return "NaN or Inf got through"
    seconds = time.process_time() - start
    return result if seconds < SECONDS else f"took {seconds:.1f} s"


def fuzzed(inputs: int, seed: int, folder: Path) -> Iterator[tuple[str, Path, str, float]]:
    """Kind, file, outcome and seconds of one input after the other, written into a folder."""
    chance, witness = random.Random(seed), folder / "witness"
    torch.manual_seed(seed)
    witness.mkdir()
    known = kinds(folder)
    for number in range(inputs):
        name = list(known)[number % len(known)]
        path = folder / f"input{known[name].ending}"
        path.write_bytes(mutated(known[name].good, chance, witness))
        start = time.perf_counter()
        result = outcome(known[name], path)
        seconds = time.perf_counter() - start
        for made in witness.iterdir():
            made.rmdir()
            result = "ran code"
        yield name, path, result, seconds


@click.command()
@click.option("--inputs", default=100_000)
@click.option("--seed", default=0)
@click.option("--keep", type=click.Path(path_type=Path), default="build/fuzz", help="Folder for inputs that failed.")
def main(inputs: int, seed: int, keep: Path) -> None:
    outcomes: dict[str, Counter] = {}
    slowest: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, path, result, seconds) in enumerate(fuzzed(inputs, seed, Path(folder))):
            if result not in FINE:
                keep.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, keep / f"{seed}-{number}{path.suffix}")
                (keep / f"{seed}-{number}.txt").write_text(f"{name}\n{result}\n", "utf-8")
            outcomes.setdefault(name, Counter())[result if result in FINE else "failed"] += 1
            slowest[name] = max(slowest.get(name, 0.0), seconds)
    print("| kind | inputs | read | refused | failed | slowest, s |\n|---|---|---|---|---|---|")
    for name, counted in outcomes.items():
        counts = " | ".join(str(counted[key]) for key in (*FINE, "failed"))
        print(f"| {name} | {counted.total()} | {counts} | {slowest[name]:.2f} |")
    sys.exit(any(counted["failed"] for counted in outcomes.values()))


if __name__ == "__main__":
    main()
