"""`idea blend` and `idea edit`"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from ...errors import ConfigError
from ...identity.checks import require_name
from ...text.names import as_on_disk
from .console import Result, reports
from .grouped import PATH


@click.command()
@click.argument("files", nargs=-1, required=True, type=PATH)
@click.option(
    "--weight", "weights", type=float, multiple=True, help="Weight of each file, in order. Default: all equal."
)
@click.option("--name", required=True, help="The new person's name.")
@click.option("--rank", type=click.IntRange(1), help="Rank of the result's K/V change. Default: the sum of the ranks.")
@click.option("-o", "--output", type=PATH, help="File to write.  [default: NAME.safetensors]")
@reports
def blend(
    files: tuple[Path, ...], weights: Sequence[float], name: str, rank: int | None, output: Path | None
) -> Result:
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


def _loss_note(lost: float) -> str:
    return f" ({100 * lost:.1f} % of the K/V change lost)" if lost else ""
