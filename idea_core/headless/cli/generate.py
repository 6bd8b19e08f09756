"""`idea generate`"""

from __future__ import annotations

import json
import re
from pathlib import Path

import click

from ...errors import ConfigError
from ...files.textfile import read_text
from ...text.names import as_on_disk, one_form
from ...text.prompts import near_misses, split_prompt, unknown_names
from ..config import GenerateConfig
from .console import Result, progress, reports, warn
from .grouped import PATH, settings_group
from .options import model_options
from .published import PublishedNames

_LONGEST = 250  # bytes: file systems take 255
_UNSAFE = re.compile(r'[/\\:*?"<>|\x00-\x1f]')


@click.command(cls=PublishedNames)
@reports
@model_options
@click.option(
    "--identity", "files", type=PATH, multiple=True, required=True, help="A trained person's file; may be repeated."
)
@click.option(
    "--prompt",
    "prompts",
    multiple=True,
    help="What to draw. {} or <name> is the person, (…:1.3) weighs what is in it; may be repeated.",
)
@click.option("--prompt-file", type=PATH, help="File of prompts, one per line.")
@click.option("--save-dir", type=PATH, default="images", help="Pictures go to a folder of the prompt's name in it.")
@click.option(
    "--num-images-per-prompt",
    "--count",
    "count",
    type=click.IntRange(1),
    default=4,
    help="Images of each prompt and iteration.",
)
@click.option("--n-iter", type=click.IntRange(1), default=1, help="How often to make that many.")
@settings_group("config", GenerateConfig)
@click.option("--strength", type=float, default=1.0, help="Strength of ID-Adapter.")
@click.option("--kv-strength", type=float, default=1.0, help="Strength of the change to keys and values.")
def generate(model, files, prompts, prompt_file, save_dir, count, n_iter, config, **strengths) -> Result:
    """Draw trained people. Several --identity files put several people into one prompt, each by name.

    A Textual Inversion file (learned_embeds.bin, diffusers', A1111's) works as an identity too.
    """
    from ...identity.convert import read_person
    from ..diffusers import People
    from ..diffusers import generate as pictures_of

    prompts = _prompts(prompts, prompt_file)
    identities = [read_person(path) for path in files]
    names = [identity.name for identity in identities]
    _check(prompts, config.negative, names)
    pipeline = model.load()
    _check_predictions(pipeline, identities)
    people = People(pipeline, identities, **strengths)
    said = {**config.as_dict(), "people": names, "model": model.path.name, **strengths}
    saved = []
    with progress(len(prompts) * count * n_iter, "generating", "image") as bar:
        for prompt in prompts:
            folder = as_on_disk(save_dir / folder_name(prompt))
            folder.mkdir(parents=True, exist_ok=True)
            number = _next_number(folder)
            for seed, picture in pictures_of(pipeline, people, prompt, count * n_iter, config):
                path = folder / f"{number}.png"
                picture.save(path, pnginfo=_metadata({**said, "prompt": prompt, "seed": seed}))
                saved.append({"path": str(path), "prompt": prompt, "seed": seed})
                number += 1
                bar.update()
    return Result({"images": saved}, f"{len(saved)} pictures in {save_dir}")


def folder_name(prompt: str) -> str:
    """A prompt as a folder's name: spaces become underscores, as in the published command."""
    name = _UNSAFE.sub("", one_form(prompt).strip().replace(" ", "_"))[:120]
    return name.encode()[:_LONGEST].decode(errors="ignore").strip(".") or "_"


def _prompts(prompts: tuple[str, ...], file: Path | None) -> list[str]:
    if bool(prompts) == bool(file):
        raise click.UsageError("Give --prompt or --prompt-file.")
    lines = [line for line in (read_text(file).split("\n") if file else prompts) if line.strip()]
    if not lines:
        raise ConfigError("at least one prompt", "none", "Give --prompt, or a file with a prompt a line.")
    return lines


def _check(prompts: list[str], negative: str, names: list[str]) -> None:
    """Warn of prompts that name nobody, or somebody who is not there, or a person in a way that is not read."""
    triggers, hints = ", ".join(f"<{name}>" for name in names), dict.fromkeys(near_misses(negative, names))
    for prompt in prompts:
        missed = near_misses(prompt, names)
        hints |= dict.fromkeys(missed)
        if not missed and not any(isinstance(part, int) for part in split_prompt(prompt, names)):
            warn(f"{prompt!r} names none of {triggers}.")
        for stranger in unknown_names(prompt, names):
            warn(f"{stranger} in {prompt!r} is none of {triggers}, and stays plain text.")
    for hint in hints:
        warn(hint)


def _next_number(folder: Path) -> int:
    return max((int(path.stem) for path in folder.glob("*.png") if path.stem.isdigit()), default=-1) + 1


def _check_predictions(pipeline, identities) -> None:
    """Warn of people who were trained on a model of another prediction; Textual Inversion files do not say."""
    from ..diffusers.schedule import prediction_of

    predicts = prediction_of(pipeline.scheduler)
    for identity in identities:
        if identity.has_adapter and identity.prediction != predicts:
            warn(f"{identity.trigger} was trained on a model that predicts {identity.prediction}, not {predicts}.")


def _metadata(said: dict):
    """What a PNG tells of itself; `idea evaluate` reads the prompt from it."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_itxt("id-ea", json.dumps(said))
    return info
