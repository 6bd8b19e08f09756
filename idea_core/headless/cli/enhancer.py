"""`idea enhancer`"""

from __future__ import annotations

import dataclasses
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import click

from ...enhancers.dataset import DatasetConfig
from ...enhancers.draw_dataset import blocks
from ...enhancers.run import VALIDATE_EVERY, EnhancerSpec
from ...enhancers.trainer import EnhancerTrainConfig
from ...files.textfile import read_text
from ...text.captions import parse_prompts
from ...training.run import Progress
from ..jobs.train import require_output
from .console import Result, progress, reports, warn
from .options import PATH, engine_options, face_options, model_options, take_cluster, take_faces, take_model, together

WHOLE = "0/1"  # shard
_DEFAULTS, _PICTURES = EnhancerTrainConfig(), DatasetConfig()
_SETTINGS = tuple({field.name for field in dataclasses.fields(EnhancerTrainConfig)} - {"likeness_guidance"})

pictures_options = together(
    [
        click.option("--work", type=PATH, default="people", help="Folder for the pictures, which are made once."),
        click.option("--names", type=PATH, help="File of names that the base model can draw, one a line."),
        click.option(
            "--num-synthetic",
            type=click.IntRange(0),
            default=_PICTURES.num_synthetic,
            help="So many more people, named by parts of different names.",
        ),
        click.option("--prompts", type=PATH, help="File of prompts with {} for the name, one a line."),
        click.option(
            "--images-per-person",
            type=click.IntRange(3),
            default=_PICTURES.images_per_person,
            help="Pictures of each person.",
        ),
        click.option(
            "--min-similarity",
            type=float,
            default=_PICTURES.min_similarity,
            help="Least cosine of a face to the person's others.",
        ),
        click.option(
            "--val-fraction",
            type=click.FloatRange(0, 0.9),
            default=_PICTURES.val_fraction,
            help="Share of names kept for `eval`.",
        ),
        click.option("--resolution", type=int, help="Their side in pixels. Default: what the model was trained at."),
        click.option(
            "--sampling-steps",
            type=click.IntRange(1),
            default=_PICTURES.sampling_steps,
            help="Sampling steps of the pictures.",
        ),
        click.option("--guidance", type=float, default=_PICTURES.guidance, help="Scale of classifier-free guidance."),
        click.option(
            "--sampling-batch-size",
            type=click.IntRange(1),
            default=_PICTURES.sampling_batch_size,
            help="Pictures sampled at once.",
        ),
    ]
)


def _setting(field: str, text: str):
    kind = type(getattr(_DEFAULTS, field))
    return click.option("--" + field.replace("_", "-"), type=kind, default=getattr(_DEFAULTS, field), help=text)


@click.group()
def enhancer() -> None:
    """An ID-Enhancer that has seen people: a new person in one step, without training.

    The base model draws people whom it knows by name; from the faces in those pictures the Enhancer learns what a face
    embedding means to this base model. `idea train --enhancer FILE --steps 0` then makes a person of a photo at once,
    and a few steps more start near the goal.
    """


@enhancer.command("train")
@model_options
@face_options
@pictures_options
@engine_options
@click.option("--threads", type=click.IntRange(1), default=1, help="CPU threads of a task on Ray.")
@click.option("-o", "--output", type=PATH, required=True, help="File to write.")
@click.option("--pictures-only", is_flag=True, help="Make the pictures and stop.")
@click.option("--save-every", type=click.IntRange(0), default=200, help="Steps between two saves of the training.")
@click.option(
    "--validate-every",
    type=click.IntRange(0),
    default=VALIDATE_EVERY,
    help="Steps between two looks at people held out; where their likeness falls, the training ends, at its best. 0: "
    "none.",
)
@click.option(
    "--shard",
    default=WHOLE,
    help="Which people's pictures to make: 0/4, 1/4 … on four machines of one --sampling-batch-size.",
)
@click.option("--start", type=PATH, help="File of an ID-Enhancer to go on from; it has learnt by text already.")
@_setting("steps", "Optimiser steps.")
@_setting("text_steps", "Of these, so many first ones learn by text alone, without the UNet.")
@_setting("likeness_steps", "Of these, so many last ones draw people and ask the recogniser; they want large batches.")
@_setting("batch_size", "Pictures per step; by text four times as many.")
@_setting("seed", "Of every random choice of the training.")
@_setting("heads", "Attention heads of Enhancer and Adapter.")
@_setting("beta", "Scale of the Adapter's gate.")
@_setting("lr", "Learning rate by pictures.")
@_setting("text_lr", "Learning rate by text.")
@_setting("likeness_lr", "Learning rate by likeness.")
@_setting("likeness_weight", "How much likeness counts beside the pictures.")
@_setting("likeness_sampling_steps", "Sampling steps of the people who are drawn for it.")
@_setting("views", "At most so many pictures give a face together.")
@_setting("snr_gamma", "γ of min-SNR weights.")
@_setting("snr_scale", "Bound of those weights.")
@_setting("weight_decay", "AdamW's.")
@_setting("dropout", "Share of the hidden values that are left out of a step.")
@reports
def train_enhancer(
    output: Path,
    pictures_only: bool,
    shard: str,
    threads: int,
    save_every: int,
    validate_every: int,
    start: Path | None,
    **options,
) -> Result:
    """Draw people by name, keep the pictures whose faces agree, and train.

    What is drawn already is not drawn again, and a training that was stopped goes on when the same command runs again.
    On Ray the pictures are drawn by all machines, which need the package, the model and the work folder under the same
    paths; the training itself runs here.
    """
    from ...enhancers.pretrained import PretrainedEnhancer

    settings = {field: options.pop(field) for field in _SETTINGS}
    if settings["likeness_steps"]:
        settings["likeness_guidance"] = options["guidance"]
    config = EnhancerTrainConfig(**settings)
    begun = PretrainedEnhancer.load(start) if start else None
    part = _shard(shard)
    require_output(output)
    cluster = take_cluster(options, threads)
    if cluster and shard != WHOLE:
        raise click.UsageError("--engine ray shares the work by itself: leave --shard out.")
    job = take_people(options)
    people = job.open()
    if not pictures_only:
        job.require_trainable(config, begun)
    if cluster:
        from ..jobs.ray_engine import draw_on_ray

        drawn = draw_on_ray(job, people, cluster)
    else:
        drawn = job.draw(people, part)
    # Ray prints what its machines report; results alone belong on stdout.
    count = sum(map(len, blocks(job.config, part)))
    with redirect_stdout(sys.stderr), progress(count, "drawing people", "person") as bar:
        for _ in drawn:
            bar.update()
    if pictures_only:
        return Result({"folder": str(job.folder)}, f"Pictures in {job.folder}")
    with progress(config.steps, "training", "step") as bar:

        def on_progress(done: Progress) -> None:
            bar.update(done.step - bar.n)
            bar.set_postfix(loss=f"{done.loss:.4f}", refresh=False)

        trained = job.train(EnhancerSpec(people, config, validate_every, begun), output, save_every, on_progress)
    data = {"output": str(output), **trained.training}
    count, pictures = trained.training["people"], trained.training["num_images"]
    return Result(data, f"Trained across {count} people and {pictures} pictures: {output}")


@enhancer.command("mean")
@click.argument("files", type=PATH, nargs=-1, required=True)
@click.option("-o", "--output", type=PATH, required=True, help="File to write.")
@reports
def mean_enhancer(files: tuple[Path, ...], output: Path) -> Result:
    """The mean of FILES, which `train --start` made of one ID-Enhancer with different seeds; often better than each."""
    from ...enhancers.pretrained import PretrainedEnhancer

    require_output(output)
    PretrainedEnhancer.mean_of([PretrainedEnhancer.load(file) for file in files]).save(output)
    data = {"output": str(output), "files": list(map(str, files))}
    return Result(data, f"Mean of {len(files)} ID-Enhancers: {output}")


@enhancer.command("eval")
@click.argument("file", type=PATH)
@model_options
@face_options
@pictures_options
@reports
def evaluate_enhancer(file: Path, **options) -> Result:
    """Mean similarity of instant images to the images of the people held out, beside the base model's own by name."""
    from ...enhancers.pretrained import PretrainedEnhancer

    trained = PretrainedEnhancer.load(file)
    job = take_people(options)
    if trained.base_ref.base_hash != job.model.digest:
        warn(f"{file} was trained for {trained.base_checkpoint}, another model.")
    rows = list(job.evaluate(job.open(), trained))
    means = {key: sum(row[key] for row in rows) / len(rows) for key in ("mean_similarity", "by_name", "detected")}
    lines = [f"{key:<15} {value:.3f}" for key, value in means.items()]
    return Result({**means, "people": rows}, "\n".join([f"{len(rows)} people held out", *lines]))


@enhancer.command("info")
@click.argument("file", type=PATH)
@reports
def enhancer_info(file: Path) -> Result:
    """What an ID-Enhancer's FILE holds."""
    from ...enhancers.pretrained import PretrainedEnhancer

    trained = PretrainedEnhancer.load(file)
    data = {key: value for key, value in trained.metadata().items() if key != "training"}
    data |= {"num_tokens": trained.num_tokens, "bytes": file.stat().st_size, **trained.training}
    width = max(map(len, data))
    return Result(data, "\n".join(f"{key:<{width}}  {value}" for key, value in data.items()))


def take_people(options: dict[str, Any]):
    """Take the pictures' job out of a command's options."""
    from ...method.anchor import parse_names
    from ..jobs.enhancer import PeopleJob
    from .train import native_resolution

    names, prompts = options.pop("names"), options.pop("prompts")
    folder, model, faces = options.pop("work"), take_model(options), take_faces(options)
    config = DatasetConfig(
        names=parse_names(read_text(names) if names else ""),
        prompts=parse_prompts(read_text(prompts) if prompts else ""),
        sampling_batch_size=options.pop("sampling_batch_size"),
        resolution=options.pop("resolution") or native_resolution(model.load()),
        **options,
    )
    return PeopleJob(folder.absolute(), model.absolute(), faces.absolute(), config)


def _shard(text: str) -> tuple[int, int]:
    try:
        number, of = map(int, text.split("/"))
    except ValueError:
        number, of = 0, 0
    if not 0 <= number < of:
        raise click.UsageError(f"--shard {text}: write 0/4 for the first of four parts.")
    return number, of
