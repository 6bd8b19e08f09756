"""`idea train`"""

from __future__ import annotations

import dataclasses
import time
from itertools import count
from pathlib import Path
from typing import Any

import click
from click import Option

from ...enhancers.refine import Candidate
from ...faces.photos import find_photos
from ...identity.checks import require_name
from ...identity.identity import Identity
from ...images import to_pixels
from ...text.names import as_on_disk
from ...training.preview import PROMPT, PreviewConfig, WatchConfig
from ...training.run import Progress
from ..jobs import ModelSource, PhotoSource, TrainJob
from ..jobs.train import require_output
from .console import Result, progress, reports, save_images, warn
from .grouped import PATH, grouped, options_of
from .options import PHOTO_OPTIONS, face_options, model_options, resolution_option, train_options
from .published import PublishedNames


def _watch(every: int, target: float | None, preview_prompt: tuple[str, ...], preview_count: int) -> WatchConfig:
    return WatchConfig(every, PreviewConfig(preview_prompt, tuple(range(preview_count))), target)


@click.command(cls=PublishedNames)
@reports
@model_options
@grouped(
    "photos",
    PhotoSource,
    Option(["--photos", "places"], type=PATH, multiple=True, required=True, help="Photo or folder; may be repeated."),
    Option(["--id-embeds"], type=PATH, help="Face embedding from `idea encode`. Default: from these photos."),
    *PHOTO_OPTIONS,
)
@resolution_option
@click.option("--name", required=True, help="The person's name; prompts say it in angle brackets: <alice>")
@click.option("-o", "--output", type=PATH, help="File to write.  [default: NAME.safetensors]")
@face_options
@train_options
@click.option("--save-every", type=click.IntRange(0), default=0, help="Steps between two saves of the training state.")
@click.option("--resume/--no-resume", default=True, help="Continue an interrupted run of the same inputs.")
@grouped(
    "watch",
    _watch,
    *options_of(WatchConfig),
    Option(["--preview-prompt"], multiple=True, default=[PROMPT], help="Prompt of the previews; may be repeated."),
    Option(["--preview-count"], type=click.IntRange(1), default=1, help="Previews of each prompt."),
)
@click.option("--force", is_flag=True, help="Train again even if the output was made from the same inputs.")
def train(
    name: str, output: Path | None, force: bool, model: ModelSource, photos: PhotoSource, **options: Any
) -> Result:
    """Train a person from a few photos: pseudo-tokens, ID-Enhancer, ID-Adapter, keys and values.

    Previews are saved in a folder beside the output. All previews use the same seeds and noise.
    """
    training, resolution = options.pop("training"), options.pop("resolution")
    output = output or as_on_disk(Path(f"{require_name(name)}.safetensors"))
    find_photos(photos.places)  # fails before the model is loaded, which takes long
    resolution = resolution or model.native_resolution()
    photos = dataclasses.replace(photos, resolution=resolution)
    job = training.job(photos, name=name, output=output, model=model, **options)
    require_output(output)
    finished = None if force else job.finished()
    if finished:
        return _result(job, finished, f"{job.output} was made from the same inputs already; --force trains again.")
    start, refine = time.perf_counter(), job.refine
    steps, unit = (refine.drawn, "image") if refine else (job.config.steps, "step")
    folder = job.output.with_suffix("") / "previews"
    with progress(steps, f"training {name}", unit) as bar:

        def on_progress(done: Progress) -> None:
            bar.update(done.step - bar.n)
            if done.loss is not None:
                bar.set_postfix(loss=f"{done.loss:.4f}", refresh=False)
            if done.images is not None:
                names = (f"step_{done.step:05}_{number}" for number in count())
                save_images(dict(zip(names, to_pixels(done.images))), folder)

        def on_picture(drawn: int, look: Candidate | None) -> None:
            bar.update(drawn - bar.n)
            if look:
                bar.set_postfix(similarity=f"{look.similarity:.3f}", refresh=False)

        identity = job.run(on_progress, on_picture)
    ended = identity.training.get("report", {}).get("ended_early")
    if ended:
        warn(f"ended early: {ended}.")
    usual = identity.base.velocity_resolution
    if usual and identity.prediction == "v" and resolution < usual:
        warn(f"a velocity model of {identity.base.title} usually wants --resolution {usual}.")
    text = f"Trained {identity.trigger} in {time.perf_counter() - start:.0f} s: {job.output}"
    if refine:
        likeness = identity.training["report"]["likeness"]
        text += f"\nSimilarity to the mean embedding: {likeness[0][1]:.3f} at first, {likeness[-1][1]:.3f} refined."
    return _result(job, identity, text)


def _result(job: TrainJob, identity: Identity, text: str) -> Result:
    data = {
        "output": str(job.output),
        "name": identity.name,
        "base_model": identity.base_model,
        "steps": identity.training.get("steps"),
        **identity.training.get("report", {}),
        "bytes": job.output.stat().st_size,
        "digest": identity.digest(),
    }
    return Result(data, text)
