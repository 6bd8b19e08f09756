"""`idea train`"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import click

from ...faces.photos import find_photos
from ...identity.checks import require_name
from ...text.names import as_on_disk
from ...training.preview import PROMPT, PreviewConfig, WatchConfig
from ...training.run import Progress
from ..jobs import PhotoSource, TrainJob
from .console import Result, progress, reports, warn
from .grouped import PATH, grouped, options_of, settings_group
from .options import PHOTO_OPTIONS, face_options, model_options, resolution_option, train_options
from .published import PublishedNames


def _watch(every: int, target: float | None, preview_prompt: tuple[str, ...], preview_count: int) -> WatchConfig:
    return WatchConfig(every, PreviewConfig(preview_prompt, tuple(range(preview_count))), target)


@click.command(cls=PublishedNames)
@reports
@model_options
@settings_group(
    "photos",
    PhotoSource,
    [
        click.Option(
            ["--photos", "places"],
            type=PATH,
            multiple=True,
            required=True,
            help="Folder of photos, or a photo; may be repeated.",
        ),
        click.Option(
            ["--id-embeds"], type=PATH, help="Face embedding from `idea encode`. Default: that of these photos."
        ),
        *PHOTO_OPTIONS,
    ],
)
@resolution_option
@click.option("--name", required=True, help="The person's name; prompts say it in angle brackets: <alice>")
@click.option("-o", "--output", type=PATH, help="File to write.  [default: NAME.safetensors]")
@face_options
@train_options
@click.option(
    "--save-every",
    type=click.IntRange(0),
    default=0,
    help="Steps between two saves of the state that --resume takes up.",
)
@click.option(
    "--resume/--no-resume", default=True, help="Go on with a broken run of the same inputs, if it saved its state."
)
@grouped(
    "watch",
    [
        *options_of(WatchConfig),
        click.Option(
            ["--preview-prompt"], multiple=True, default=[PROMPT], help="Prompt of the previews; may be repeated."
        ),
        click.Option(["--preview-count"], type=click.IntRange(1), default=1, help="Previews of each prompt."),
    ],
    _watch,
)
@click.option("--force", is_flag=True, help="Train again even if the output is of exactly these inputs.")
def train(name, output, force, model, photos, resolution, faces, training, **options) -> Result:
    """Train a person from a few photos: pseudo-tokens, ID-Enhancer, ID-Adapter, keys and values.

    Pictures on the way stand in a folder beside the output, each with the seed and the noise of the ones before it.
    """
    output = output or as_on_disk(Path(f"{require_name(name)}.safetensors"))
    find_photos(photos.places)  # before the model, which takes long to load
    resolution = resolution or native_resolution(model.load())
    photos = dataclasses.replace(photos, resolution=resolution)
    job = training.job(photos, name=name, output=output, model=model, faces=faces, **options)
    job.require_output()
    found = None if force else job.finished()
    if found:
        return _result(job, found, f"{job.output} is of exactly these inputs already; --force trains again.")
    start = time.perf_counter()
    refine = job.refine
    steps, unit = (refine.drawn, "picture") if refine else (job.config.steps, "step")
    with progress(steps, f"training {name}", unit) as bar:

        def on_progress(done: Progress) -> None:
            bar.update(done.step - bar.n)
            if done.loss is not None:
                bar.set_postfix(loss=f"{done.loss:.4f}", refresh=False)
            if done.images is not None:
                _write_previews(job.output.with_suffix("") / "previews", done.step, done.images)

        def on_picture(count: int, look) -> None:
            bar.update(count - bar.n)
            if look:
                bar.set_postfix(similarity=f"{look.similarity:.3f}", refresh=False)

        identity = job.run(on_progress, on_picture)
    ended = identity.training.get("report", {}).get("ended_early")
    if ended:
        warn(f"ended early: {ended}.")
    wanted = identity.base.velocity_resolution
    if wanted and identity.prediction == "v" and resolution < wanted:
        warn(f"a velocity model of {identity.base.title} usually wants --resolution {wanted}.")
    text = f"Trained {identity.trigger} in {time.perf_counter() - start:.0f} s: {job.output}"
    if refine:
        likeness = identity.training["report"]["likeness"]
        text += f"\nSimilarity to the mean embedding: {likeness[0][1]:.3f} at first, {likeness[-1][1]:.3f} refined."
    return _result(job, identity, text)


def native_resolution(pipeline) -> int:
    """Side in pixels of the pictures that the base model was trained on."""
    return pipeline.unet.config.sample_size * pipeline.vae_scale_factor


def _write_previews(folder: Path, step: int, images) -> None:
    from PIL import Image

    from ...images import to_pixels

    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(to_pixels(images)):
        Image.fromarray(image).save(folder / f"step_{step:05}_{number}.png")


def _result(job: TrainJob, identity, text: str) -> Result:
    report = identity.training.get("report", {})
    data = {
        "output": str(job.output),
        "name": identity.name,
        "base_model": identity.base_model,
        "steps": identity.training.get("steps"),
        **report,
        "bytes": job.output.stat().st_size,
        "digest": identity.digest(),
    }
    return Result(data, text)
