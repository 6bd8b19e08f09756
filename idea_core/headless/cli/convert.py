"""`idea info` and `idea convert`"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from ...errors import ConfigError
from .console import Result, reports, warn
from .grouped import PATH

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
@click.option(
    "--prediction",
    type=click.Choice(["eps", "v"]),
    default="eps",
    help="Prediction of the base model, for files that do not say it. An identity does.",
)
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


def describe_file(file: Path) -> dict[str, Any]:
    """The file's format and contents, JSON values."""
    from ...faces.embeds_file import FORMAT, load_embeds
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
