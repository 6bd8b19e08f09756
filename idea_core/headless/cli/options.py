"""Options that several commands share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import click

from ...diffusion.backbone import PRECISION_CHOICES
from ...enhancers.refine import RefineConfig
from ...faces.providers import PROVIDER_CHOICES
from ...files.textfile import read_text
from ...text.captions import CAPTIONS, captions_of, parse_prompts
from ...text.names import as_on_disk
from ...training.config import PRESETS, REGULARIZERS, STARTS, TrainConfig
from ..jobs import FaceSource, ModelSource, PhotoSource, TrainJob
from ..jobs.photo_source import CROPS


class _PathOnDisk(click.Path):
    """A path, spelled as the file system spells it where it is there."""

    def convert(self, value, param, ctx) -> Path:
        return as_on_disk(super().convert(value, param, ctx))


PATH = _PathOnDisk(path_type=Path)
_CHOICES = {"start": click.Choice(STARTS), "regularizer": click.Choice(REGULARIZERS)}
_HINTS = get_type_hints(TrainConfig)
_FLAGS = {"regularizer_weight": "--reg-weight"}
_SETTINGS = {
    "steps": "Optimiser steps. More give more likeness and, in the end, less obedience.",
    "batch_size": "Photos per step. Lower it if memory runs out.",
    "seed": "Of every random choice. The same seed and inputs give the same person.",
    "num_tokens": "Pseudo-tokens that stand for the person in a prompt; with --enhancer as many as it gives.",
    "start": "Where the pseudo-tokens start: between the names of famous people, along whose differences they move, or "
    "at the cross initialisation, moving freely (published).",
    "axes": "At most so many differences of names for each pseudo-token.",
    "axes_lr": "Learning rate of pseudo-tokens that move along the axes of names; a tenth of it with --enhancer.",
    "token_lr": "Learning rate of pseudo-tokens that move freely.",
    "adapter_lr": "Learning rate of ID-Adapter, and of ID-Enhancer unless that has its own.",
    "enhancer_lr": "Learning rate of ID-Enhancer.",
    "kv_lr": "Learning rate of the cross attentions' keys and values; 0 leaves them alone.",
    "kv_rank": "Rank of the change to keys and values; 0 trains whole matrices. Without it 8, for SDXL 2.",
    "gate_init": "How far ID-Adapter's gate stands open at the start. At 0 it learns little at first.",
    "heads": "Attention heads of ID-Enhancer and ID-Adapter; with --enhancer those that it has.",
    "beta": "Scale of ID-Adapter's gate; with --enhancer the one that it has.",
    "regularizer": "What holds the pseudo-tokens to their starting point: the Mahalanobis distance by the spread of "
    "the starting point's own rows (published) or of the names; or the squared distance.",
    "regularizer_weight": "Weight of that distance.",
    "zeta": "Added to that spread; smaller holds tighter.",
    "flip_p": "Probability of a mirrored photo.",
    "sample_latents": "Draw a photo's latents anew from what the VAE makes of it at each step, as published.",
    "likeness_weight": "How much likeness itself counts: at each step the person is drawn, and the face compared with "
    "the photos'. It needs face models, and eight to twenty times as long a step.",
    "likeness_images": "Pictures drawn at each step for it.",
    "likeness_sampling_steps": "Sampling steps of each of them.",
    "likeness_guidance": "Guidance of them.",
    "swa_fraction": "Share of the steps, the last ones, whose mean the person is; 0: as after the last one.",
    "weight_decay": "AdamW's.",
    "adam_epsilon": "AdamW's.",
}


def together(options: Iterable[Callable]) -> Callable:
    """Several options as one decorator, in their order."""

    def decorate(command):
        for option in reversed(list(options)):
            command = option(command)
        return command

    return decorate


model_options = together(
    [
        click.option(
            "--model",
            type=PATH,
            required=True,
            help="Base model: folder of a diffusers pipeline, or a checkpoint in one file. Nothing is downloaded.",
        ),
        click.option("--vae", type=PATH, help="File or folder of a VAE, in place of the model's own."),
        click.option(
            "--prediction",
            type=click.Choice(["eps", "v"]),
            help="What the model predicts, noise or velocity, where it does not say itself.",
        ),
        click.option(
            "--dtype",
            type=click.Choice(PRECISION_CHOICES),
            default="auto",
            help="Precision of UNet and VAE; auto: half on CUDA, else single.",
        ),
        click.option("--device", default="auto", help="cpu, cuda, cuda:1, mps …; auto: the GPU if there is one."),
    ]
)

face_options = together(
    [
        click.option(
            "--face-models",
            type=PATH,
            help="Folder of a face model pack (.onnx files), or an insightface folder. "
            "Default: insightface's own and ComfyUI's.",
        ),
        click.option("--face-pack", help="Name of the pack, where there are several; default: the first one."),
        click.option("--provider", type=click.Choice(PROVIDER_CHOICES), default="auto", help="Where face models run."),
    ]
)

engine_options = together(
    [
        click.option(
            "--engine", type=click.Choice(["local", "ray"]), default="local", help="Here, or on a Ray cluster."
        ),
        click.option(
            "--address", help="Of the Ray cluster, such as 10.0.0.1:6379; without it Ray starts on this machine."
        ),
        click.option(
            "--gpus", type=float, help="GPUs of a task on Ray; 0.5 lets two share one. Default: 1 where there are any."
        ),
    ]
)

photo_options = together(
    [
        click.option(
            "--crop",
            type=click.Choice(CROPS),
            default="face",
            help="Train on the faces that are found, as they are or turned upright, on the photos' middle squares, or "
            "on whole photos in about their own shape.",
        ),
        click.option(
            "--focus",
            type=click.FloatRange(0, 1),
            default=0.0,
            help="How much less the surroundings of a cut-out face count: 0 not at all, 1 entirely.",
        ),
        click.option(
            "--resolution", type=int, help="Side in pixels to train at. Default: what the model was trained at."
        ),
    ]
)


def _setting(field: str) -> Callable:
    return click.option(
        _FLAGS.get(field, "--" + field.replace("_", "-")),
        field,
        type=_CHOICES.get(field) or _kind(field),
        help=_SETTINGS[field] + _preset_values(field),
    )


def _kind(field: str) -> type:
    """int, float or bool, whether it may be None or not."""
    return (get_args(_HINTS[field]) or (_HINTS[field],))[0]


def _preset_values(field: str) -> str:
    values = {name: getattr(config, field) for name, config in PRESETS.items()}
    if len(set(values.values())) == 1:
        value = next(iter(values.values()))
        return "" if value is None else f" Default: {_shown(value)}."
    shown = ", ".join(f"{name} {_shown(value)}" for name, value in values.items() if value is not None)
    return f" Default: the preset's ({shown})."


def _shown(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"


train_options = together(
    [
        click.option(
            "--preset", type=click.Choice(list(PRESETS)), default="fast", help="Settings that those below change."
        ),
        *map(_setting, _SETTINGS),
        click.option("--captions", type=click.Choice(list(CAPTIONS)), help="Training captions. Default: the preset's."),
        click.option("--names", type=PATH, help="File of celebrity names, one a line, that the person starts from."),
        click.option("--phrase", help='Start from a phrase instead, such as "human face".'),
        click.option(
            "--enhancer", type=PATH, help="ID-Enhancer that has seen people, to start from; --steps 0: no more."
        ),
        click.option(
            "--refine",
            type=click.IntRange(0),
            default=0,
            help="With --enhancer and --steps 0: draw the person, compare the faces, and correct, so many times.",
        ),
        click.option("--refine-prompts", type=PATH, help="File of prompts with {} for the person to draw, one a line."),
        click.option("--clip-layer", type=int, help="Text encoder layer, counted from the end, such as -2."),
        click.option("--gradient-checkpointing", is_flag=True, help="Less memory, slower steps."),
    ]
)


def take_config(options: dict[str, Any]) -> TrainConfig:
    """Take the training settings out of a command's options."""
    preset = PRESETS[options["preset"]]
    given = {field: options.pop(field) for field in _SETTINGS}
    return dataclasses.replace(preset, **{field: value for field, value in given.items() if value is not None})


def take_captions(options: dict[str, Any]) -> str:
    preset = options.pop("preset")
    return options.pop("captions") or captions_of(preset)


def take_names(options: dict[str, Any]) -> tuple[str, ...]:
    """Take celebrity names out of a command's options: a file's, a phrase, or the list of the package."""
    from ...method.anchor import parse_names

    file, phrase = options.pop("names"), options.pop("phrase")
    if file and phrase:
        raise click.UsageError("--names and --phrase cannot both be given.")
    return (phrase,) if phrase else parse_names(read_text(file) if file else "")


def take_model(options: dict[str, Any]) -> ModelSource:
    keys = {"model": "path", "vae": "vae", "prediction": "prediction", "dtype": "dtype", "device": "device"}
    return ModelSource(**{field: options.pop(key) for key, field in keys.items()})


def take_job(
    options: dict[str, Any],
    name: str,
    output: Path,
    model: ModelSource,
    resolution: int,
    places: Iterable[Path] = (),
    id_embeds: Path | None = None,
) -> TrainJob:
    """A training of all that is left of a command's options."""
    rounds, prompts = options.pop("refine"), options.pop("refine_prompts")
    if prompts and not rounds:
        raise click.UsageError("--refine-prompts needs --refine.")
    prompts = parse_prompts(read_text(prompts) if prompts else "")
    return TrainJob(
        name=name,
        output=output,
        model=model,
        photos=PhotoSource(tuple(places), id_embeds, options.pop("crop"), resolution, options.pop("focus")),
        faces=take_faces(options),
        config=take_config(options),
        captions=take_captions(options),
        names=take_names(options),
        refine=RefineConfig(rounds=rounds, prompts=prompts, resolution=resolution) if rounds else None,
        **options,
    )


def take_cluster(options: dict[str, Any], threads: int):
    """Take the Ray cluster out of a command's options; None: all is done here."""
    from ..jobs.ray_engine import Cluster

    cluster = Cluster(options.pop("address"), threads, options.pop("gpus"))
    return cluster if options.pop("engine") == "ray" else None


def take_faces(options: dict[str, Any]) -> FaceSource:
    keys = {"face_models": "folder", "face_pack": "pack", "provider": "provider"}
    return FaceSource(**{field: options.pop(key) for key, field in keys.items()})
