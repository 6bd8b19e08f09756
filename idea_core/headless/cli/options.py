"""Groups of options that several commands share."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from click import Choice, IntRange, Option

from ...diffusion.backbone import PRECISION_CHOICES
from ...enhancers.config import RefineConfig
from ...faces.packs import PROVIDER_CHOICES
from ...files.textfile import read_text
from ...method.anchor import parse_names
from ...settings import settings_of
from ...text.captions import CAPTIONS, captions_of, parse_prompts
from ...training.config import PRESETS, TrainConfig
from ..jobs import FaceSource, ModelSource, PhotoSource, TrainJob
from .grouped import PATH, grouped, options_of

if TYPE_CHECKING:
    from ..jobs.ray_engine import Cluster


class Engine(NamedTuple):
    """Where tasks run; without a cluster in this process."""

    threads: int
    cluster: Cluster | None


@dataclass(frozen=True)
class Training:
    """How a person is trained: the fields of a `TrainJob` besides its person, model and photos."""

    config: TrainConfig
    captions: str
    names: tuple[str, ...]
    enhancer: Path | None
    refine: RefineConfig | None
    clip_layer: int | None
    gradient_checkpointing: bool
    compiled: bool

    def job(self, photos: PhotoSource, **where: Any) -> TrainJob:
        """The training of these photos; `where` gives the other fields of `TrainJob`."""
        refine = self.refine and dataclasses.replace(self.refine, resolution=photos.resolution)
        return TrainJob(photos=photos, **{**vars(self), "refine": refine}, **where)


def _engine(engine: str, address: str | None, gpus: float | None, threads: int) -> Engine:
    from ..jobs.ray_engine import Cluster  # imports diffusers, which takes long

    return Engine(threads, Cluster(address, threads, gpus) if engine == "ray" else None)


def training_of(preset: str, captions: str | None, names: Path | None, phrase: str | None, **others: Any) -> Training:
    """The values of `TRAIN_OPTIONS` as one object."""
    if names and phrase:
        raise click.UsageError("--names and --phrase cannot both be given.")
    rounds, prompts = others.pop("refine"), others.pop("refine_prompts")
    if prompts and not rounds:
        raise click.UsageError("--refine-prompts needs --refine.")
    values = {name: others.pop(name) for name in settings_of(TrainConfig)}
    return Training(
        config=dataclasses.replace(PRESETS[preset], **{n: value for n, value in values.items() if value is not None}),
        captions=captions or captions_of(preset),
        names=(phrase,) if phrase else parse_names(read_text(names) if names else ""),
        refine=RefineConfig(rounds=rounds, prompts=prompts_of(prompts)) if rounds else None,
        **others,
    )


def prompts_of(file: Path | None) -> tuple[str, ...]:
    """A file's prompts, one per line; without a file `PORTRAIT_PROMPTS`."""
    return parse_prompts(read_text(file) if file else "")


model_options = grouped(
    "model",
    ModelSource,
    Option(
        ["--model", "path"],
        type=PATH,
        required=True,
        help="Base model: folder of a diffusers pipeline, or a checkpoint in one file. Nothing is downloaded.",
    ),
    Option(["--vae"], type=PATH, help="VAE file or folder that replaces the model's own VAE."),
    Option(["--prediction"], type=Choice(["eps", "v"]), help="Prediction, noise or velocity. Default: the model's."),
    Option(["--dtype"], type=Choice(PRECISION_CHOICES), default="auto", help="Precision. auto: half on CUDA, or fp32."),
    Option(["--device"], default="auto", help="cpu, cuda, cuda:1, mps …; auto: the GPU if there is one."),
)

face_options = grouped(
    "faces",
    FaceSource,
    Option(
        ["--face-models", "folder"],
        type=PATH,
        help="Folder of a face model pack, or an insightface folder. Default: the folders of insightface and ComfyUI.",
    ),
    Option(["--face-pack", "pack"], help="Name of the face model pack. Default: the first one."),
    Option(["--provider"], type=Choice(PROVIDER_CHOICES), default="auto", help="Hardware for the face models."),
)

witness_option = click.option(
    "--witness-pack", help="Name of a second face model pack, as an independent witness of the face similarity."
)

engine_options = grouped(
    "engine",
    _engine,
    Option(["--engine"], type=Choice(["local", "ray"]), default="local", help="This machine, or a Ray cluster."),
    Option(["--address"], help="Ray cluster, such as 10.0.0.1:6379. Without it Ray starts on this machine."),
    Option(["--gpus"], type=float, help="GPUs of a task on Ray; 0.5 lets two share one. Default: 1 if any."),
    Option(["--threads"], type=IntRange(1), default=1, help="CPU threads of a task. Equal numbers give equal results."),
)

PHOTO_OPTIONS = options_of(PhotoSource, without=["resolution"])
resolution_option = click.option("--resolution", type=int, help="Training size in pixels. Default: the base model's.")

TRAIN_OPTIONS = [
    Option(["--preset"], type=Choice(list(PRESETS)), default="fast", help="Named settings. Other options override."),
    *options_of(TrainConfig, presets=PRESETS),
    Option(["--captions"], type=Choice(list(CAPTIONS)), help="Training captions. Default: the preset's."),
    Option(["--names"], type=PATH, help="File of celebrity names, one per line, that the person starts from."),
    Option(["--phrase"], help='Phrase to start from instead, such as "human face".'),
    Option(["--enhancer"], type=PATH, help="Pretrained ID-Enhancer to start from. With --steps 0 nothing is trained."),
    Option(["--refine"], type=IntRange(0), default=0, help="Number of corrections of a person of --steps 0."),
    Option(["--refine-prompts"], type=PATH, help="File of prompts for --refine, one per line, {} for the person."),
    Option(["--clip-layer"], type=int, help="Text encoder layer, counted from the end, such as -2."),
    Option(["--gradient-checkpointing"], is_flag=True, help="Use less memory; steps are slower."),
    Option(["--compile", "compiled"], is_flag=True, help="Compile the UNet, which takes minutes: for long trainings."),
]
train_options = grouped("training", training_of, *TRAIN_OPTIONS)
