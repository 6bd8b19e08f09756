"""`idea info`, `convert`, `blend` and `edit`: commands on a person's file"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ...errors import ConfigError
from ...identity.checks import require_name
from ...text.names import as_on_disk
from .console import Result, reports, warn
from .grouped import PATH, Paths

TARGETS = ("id-ea", "published", "diffusers", "a1111", "kohya")


@click.command()
@click.argument("file", type=PATH)
@reports
def info(file: Path) -> Result:
    """Show the contents of a person's FILE: an identity, a face embedding, or a Textual Inversion file."""
    from ...identity.describe import in_lines

    data = {"file": str(file), **describe_file(file), "bytes": file.stat().st_size}
    return Result(data, in_lines(data))


@click.command()
@click.argument("file", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="File to write.")
@click.option("--to", type=click.Choice(TARGETS), default="id-ea", help="Format to write.")
@click.option("--name", help="Trigger name to give the person.")
@click.option("--kv", type=PATH, help="kohya-style LoRA whose cross-attention keys and values the person gets.")
@click.option("--prediction", type=click.Choice(["eps", "v"]), default="eps", help="Prediction, if not in the file.")
@reports
def convert(file: Path, output: Path, to: str, name: str | None, kv: Path | None, prediction: str) -> Result:
    """Convert a person's FILE, whose format is recognised, to another format. Values stay as they are.

    \b
    id-ea      identity (.safetensors), for `idea generate` and ComfyUI
    published  the ID-EA authors' learned_embeds (.bin)
    diffusers  Textual Inversion for diffusers (.safetensors, .bin)
    a1111      Textual Inversion for A1111 and others (.safetensors, .pt)
    kohya      only the change to keys and values, as a LoRA (.safetensors)

    From pickles (.bin, .pt) only weights are read; a file that would run code is refused.
    """
    from ...identity.convert import left_out, read_kv, read_person, write_kv, write_person

    identity = read_person(file, name, prediction)
    if kv:
        weights, others = read_kv(kv)
        if others:
            warn(f"{others} other layers of {kv.name} are left out.")
        if identity.kv:
            raise ConfigError("a person without K/V deltas for --kv", "one that has its own", "Leave --kv out.")
        identity = dataclasses.replace(identity, kv=weights)
    if to == "kohya":
        path, lost = write_kv(identity, output), ["pseudo-tokens", *(["Adapter"] if identity.has_adapter else [])]
    else:
        path, lost = write_person(identity, output, to), left_out(identity, to)
    if lost:
        warn(f"{to} has no place for: {', '.join(lost)}.")
    data = {"output": str(path), "format": to, "name": identity.name, "left_out": lost}
    return Result(data, f"{identity.trigger} → {path} ({to})")


@click.command()
@click.argument("files", nargs=-1, required=True, type=PATH)
@click.option(
    "--weight", "weights", type=float, multiple=True, help="Weight of each file, in order. Default: all equal."
)
@click.option("--name", required=True, help="The new person's name.")
@click.option("--rank", type=click.IntRange(1), help="Rank of the result's K/V change. Default: the sum of the ranks.")
@click.option("-o", "--output", type=PATH, help="File to write.  [default: NAME.safetensors]")
@reports
def blend(files: Paths, weights: Sequence[float], name: str, rank: int | None, output: Path | None) -> Result:
    """Mix the people of several FILES, trained on one base model, into a new one between them."""
    from ...identity.edit import blend as mix
    from ...identity.edit import shrink_kv
    from ...identity.identity import Identity

    people = [Identity.load(file) for file in files]
    mixed, lost = mix(people, weights or [1.0] * len(people), require_name(name)), 0.0
    if rank:
        mixed, lost = shrink_kv(mixed, rank)
    path = mixed.save(output or as_on_disk(Path(f"{mixed.name}.safetensors")))
    data = {"output": str(path), "name": mixed.name, "shares": mixed.training["blend"], "kv_lost": round(lost, 4)}
    return Result(data, f"{mixed.trigger} → {path}" + _loss_note(lost))


@click.command()
@click.argument("file", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="File to write.")
@click.option("--name", help="Another name.")
@click.option("--no-face", is_flag=True, help="Leave the face embedding out.")
@click.option("--no-training", is_flag=True, help="Leave the record of the training out.")
@click.option("--no-thumbnail", is_flag=True, help="Leave the thumbnail out.")
@click.option("--dtype", type=click.Choice(["fp32", "fp16", "bf16"]), help="Precision of the weights.")
@click.option("--rank", type=click.IntRange(1), help="Rank of the K/V change: a smaller file.")
@reports
def edit(file: Path, output: Path, name: str | None, dtype: str | None, rank: int | None, **without: bool) -> Result:
    """Change a person's FILE: rename, leave parts out, make it smaller. The old file stays as it is."""
    from ...diffusion.backbone import PRECISIONS
    from ...identity.edit import edit as change
    from ...identity.edit import shrink_kv
    from ...identity.identity import Identity

    if output.exists() and output.samefile(file):
        raise ConfigError("another file to write than to read", str(output), "Change the output.")
    person, lost = Identity.load(file), 0.0
    if rank:
        person, lost = shrink_kv(person, rank)
    name = require_name(name) if name else None
    face, training, thumbnail = (not without[f"no_{part}"] for part in ("face", "training", "thumbnail"))
    person = change(person, name, face, training, thumbnail, PRECISIONS[dtype] if dtype else None)
    path = person.save(output, None)
    data = {"output": str(path), "bytes": path.stat().st_size, "kv_lost": round(lost, 4)}
    return Result(data, f"{path}, {path.stat().st_size / 1e6:.1f} MB" + _loss_note(lost))


def describe_file(file: Path) -> dict[str, Any]:
    """The file's format and contents, JSON values."""
    from ...faces.embeds import FORMAT, load_embeds
    from ...files.tensorfile import read_metadata
    from ...identity.convert import read_person
    from ...identity.describe import describe
    from ...identity.identity import FORMAT as IDENTITY_FORMAT

    metadata = read_metadata(file)
    if metadata.get("format") == FORMAT.name:
        embeds = load_embeds(file)
        return {"format": FORMAT.name, "photos": len(embeds.embeds), "face_model": metadata.get("face_model", "")}
    content = describe(read_person(file))
    if metadata.get("format") == IDENTITY_FORMAT.name:
        return {"format": IDENTITY_FORMAT.name, **content}
    return {"format": "textual inversion", **content, "prediction": None}


def _loss_note(lost: float) -> str:
    return f" ({100 * lost:.1f} % of the K/V change lost)" if lost else ""
