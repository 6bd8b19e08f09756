"""`idea train`"""

from __future__ import annotations

import time
from pathlib import Path

import click

from ...faces.photos import find_photos
from ...identity.checks import require_name
from ...text.names import as_on_disk
from ...training.preview import PROMPT, PreviewConfig, WatchConfig
from ...training.run import Progress
from ..jobs import TrainJob
from .console import Result, progress, reports, warn
from .options import PATH, face_options, model_options, photo_options, take_job, take_model, train_options


@click.command()
@model_options
@click.option(
    "--photos", "places", type=PATH, multiple=True, required=True, help="Folder of photos, or a photo; may be repeated."
)
@click.option("--name", required=True, help="The person's name; prompts say it in angle brackets: <alice>")
@click.option("-o", "--output", type=PATH, help="File to write.  [default: NAME.safetensors]")
@click.option("--id-embeds", type=PATH, help="Face embedding from `idea encode`, in place of one of these photos.")
@photo_options
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
@click.option("--preview-every", type=click.IntRange(0), default=0, help="Steps between two pictures of the person.")
@click.option("--preview-prompt", multiple=True, default=[PROMPT], help="What they show; may be repeated.")
@click.option("--preview-count", type=click.IntRange(1), default=1, help="Pictures of each prompt.")
@click.option(
    "--until-likeness",
    type=float,
    help="End when the pictures' faces are this like the photos' (cosine). It also ends when likeness falls.",
)
@click.option("--force", is_flag=True, help="Train again even if the output is of exactly these inputs.")
@reports
def train(places, name, output, id_embeds, until_likeness, force, **options) -> Result:
    """Train a person from a few photos: pseudo-tokens, ID-Enhancer, ID-Adapter, keys and values.

    Pictures on the way stand in a folder beside the output, each with the seed and the noise of the ones before it.
    """
    output = output or as_on_disk(Path(f"{require_name(name)}.safetensors"))
    find_photos(places)  # before the model, which takes long to load
    preview = PreviewConfig(tuple(options.pop("preview_prompt")), tuple(range(options.pop("preview_count"))))
    watch = WatchConfig(options.pop("preview_every"), preview, until_likeness)
    model = take_model(options)
    resolution = options.pop("resolution") or native_resolution(model.load())
    job = take_job({**options, "watch": watch}, name, output, model, resolution, places, id_embeds)
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
