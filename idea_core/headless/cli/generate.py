"""`idea generate`"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click import IntRange

from ...errors import ConfigError
from ...files.textfile import read_text
from ...text.names import as_on_disk, one_form
from ...text.prompts import near_misses, split_prompt, unknown_names
from ..config import GenerateConfig
from .console import Result, progress, reports, warn
from .grouped import PATH, Paths, grouped, options_of
from .options import model_options
from .published import PublishedNames

if TYPE_CHECKING:
    from ...identity.identity import Identity
    from ..jobs import ModelSource

_MAX_BYTES = 250  # of a folder's name; file systems allow 255
_UNSAFE = re.compile(r'[/\\:*?"<>|\x00-\x1f]')


@click.command(cls=PublishedNames)
@reports
@model_options
@click.option("--identity", "files", type=PATH, multiple=True, required=True, help="Person's file; may be repeated.")
@click.option(
    "--prompt",
    "prompts",
    multiple=True,
    help="Prompt of the images; may be repeated. {} or <name> is the person, (…:1.3) sets a weight.",
)
@click.option("--prompt-file", type=PATH, help="File of prompts, one per line.")
@click.option("--save-dir", type=PATH, default="images", help="Folder for the images; a subfolder per prompt.")
@click.option("--num-images-per-prompt", "--count", "count", type=IntRange(1), default=4, help="Images per prompt.")
@click.option("--n-iter", type=IntRange(1), default=1, help="Factor on the number of images per prompt.")
@grouped("config", GenerateConfig, *options_of(GenerateConfig))
@click.option("--strength", type=float, default=1.0, help="Strength of ID-Adapter.")
@click.option("--kv-strength", type=float, default=1.0, help="Strength of the change to keys and values.")
def generate(
    model: ModelSource, files: Paths, save_dir: Path, count: int, config: GenerateConfig, **options: Any
) -> Result:
    """Generate images of trained people. Several --identity files put several people into one prompt, each by name.

    A Textual Inversion file (learned_embeds.bin, diffusers', A1111's) works as an identity too.
    """
    from PIL.PngImagePlugin import PngInfo

    from ...identity.convert import read_person
    from ..diffusers import generate as images_of
    from ..diffusers import people_of

    prompts, total = _prompts(options["prompts"], options["prompt_file"]), count * options["n_iter"]
    strengths = {name: options[name] for name in ("strength", "kv_strength")}
    identities = [read_person(path) for path in files]
    names = [identity.name for identity in identities]
    _check(prompts, config.negative, names)
    pipeline = model.load()
    _check_predictions(pipeline, identities)
    people = people_of(pipeline, identities, **strengths)
    settings = {**config.as_dict(), "people": names, "model": model.path.name, **strengths}
    saved = []
    with progress(len(prompts) * total, "generating", "image") as bar:
        for prompt in prompts:
            folder = as_on_disk(save_dir / folder_name(prompt))
            folder.mkdir(parents=True, exist_ok=True)
            first = max((int(path.stem) for path in folder.glob("*.png") if path.stem.isdigit()), default=-1) + 1
            for number, (seed, image) in enumerate(images_of(pipeline, people, prompt, total, config), first):
                path, info = folder / f"{number}.png", PngInfo()
                info.add_itxt("id-ea", json.dumps({**settings, "prompt": prompt, "seed": seed}))  # for `idea evaluate`
                image.save(path, pnginfo=info)
                saved.append({"path": str(path), "prompt": prompt, "seed": seed})
                bar.update()
    return Result({"images": saved}, f"{len(saved)} images in {save_dir}")


def folder_name(prompt: str) -> str:
    """A prompt as a folder's name: spaces become underscores, as in the published command."""
    name = _UNSAFE.sub("", one_form(prompt).strip().replace(" ", "_"))[:120]
    return name.encode()[:_MAX_BYTES].decode(errors="ignore").strip(".") or "_"


def _prompts(prompts: tuple[str, ...], file: Path | None) -> list[str]:
    if bool(prompts) == bool(file):
        raise click.UsageError("Give --prompt or --prompt-file.")
    lines = [line for line in (read_text(file).split("\n") if file else prompts) if line.strip()]
    if not lines:
        raise ConfigError("at least one prompt", "none", "Give --prompt, or a file with a prompt a line.")
    return lines


def _check(prompts: list[str], negative: str, names: list[str]) -> None:
    """Warn of prompts that name no person, an unknown person, or a person in a wrong spelling."""
    triggers, hints = ", ".join(f"<{name}>" for name in names), dict.fromkeys(near_misses(negative, names))
    for prompt in prompts:
        missed = near_misses(prompt, names)
        hints |= dict.fromkeys(missed)
        if not missed and not any(isinstance(part, int) for part in split_prompt(prompt, names)):
            warn(f"{prompt!r} names none of {triggers}.")
        for unknown in unknown_names(prompt, names):
            warn(f"{unknown} in {prompt!r} is none of {triggers}, and stays plain text.")
    for hint in hints:
        warn(hint)


def _check_predictions(pipeline: Any, identities: list[Identity]) -> None:
    """Warn of people trained on a model of another prediction. Textual Inversion files do not say theirs."""
    from ..diffusers.schedule import prediction_of

    predicts = prediction_of(pipeline.scheduler)
    for identity in identities:
        if identity.has_adapter and identity.prediction != predicts:
            warn(f"{identity.trigger} was trained on a model that predicts {identity.prediction}, not {predicts}.")
