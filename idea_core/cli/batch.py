"""`idea batch`"""

from __future__ import annotations

import dataclasses
import sys
from contextlib import redirect_stdout
from pathlib import Path

import click

from .console import Result, progress, reports
from .options import PATH, face_options, model_options, photo_options, take_job, take_model, train_options


@click.command()
@click.argument("people", type=PATH)
@model_options
@click.option("--save-dir", type=PATH, default="people", help="Folder for the identities.")
@click.option("--engine", type=click.Choice(["local", "ray"]), default="local", help="Here, or on a Ray cluster.")
@click.option("--address", help="Of the Ray cluster, such as 10.0.0.1:6379; without it Ray starts on this machine.")
@click.option("--threads", type=click.IntRange(1), default=1, help="CPU threads a training; equal ones, equal results.")
@click.option(
    "--gpus", type=float, help="GPUs a training takes on Ray; 0.5 lets two share one. Default: 1 where there are any."
)
@photo_options
@face_options
@train_options
@reports
def batch(people: Path, save_dir: Path, engine: str, address, threads: int, gpus, **options) -> Result:
    """Train all PEOPLE of a file, a JSON object a line.

    \b
    {"name": "alice", "photos": "photos/alice"}
    {"name": "bob", "photos": ["bob1.jpg", "bob2.jpg"], "steps": 50, "seed": 7, "output": "robert.safetensors"}

    Paths are relative to the file. Who is finished is skipped when the same command runs again, a bad entry does not
    stop the others, and on Ray a training whose worker dies starts again elsewhere. On Ray, every machine needs the
    package, the model, the photos and the output folder under the same paths.
    """
    import torch

    from ..jobs.people import FAILED, read_people, train_locally
    from ..jobs.sources import forget_models
    from .train import native_resolution

    model = take_model(options)
    absolute = {"path": model.path.absolute(), "vae": model.vae and model.vae.absolute()}
    model = dataclasses.replace(model, **absolute)
    resolution = options.pop("resolution")
    if resolution is None:
        here = dataclasses.replace(model, device="cpu") if engine == "ray" else model
        resolution = native_resolution(here.load())
        if engine == "ray":
            forget_models()  # this process trains nobody
    if options["face_models"]:
        options["face_models"] = options["face_models"].absolute()
    common = take_job(options, "common", save_dir, model, resolution)
    entries = read_people(people.absolute(), common, save_dir.absolute())
    digest = model.digest()
    if engine == "ray":
        from ..jobs.ray_engine import train_on_ray

        outcomes = train_on_ray(entries, digest, address, threads, gpus)
    else:
        torch.set_num_threads(threads)
        outcomes = train_locally(entries, digest)
    done = []
    # Ray prints what its machines report; results alone belong on stdout.
    with redirect_stdout(sys.stderr), progress(len(entries), "people", "person") as bar:
        for outcome in outcomes:
            done.append(outcome)
            bar.update()
    done.sort(key=lambda outcome: outcome.line)
    failed = sum(outcome.status == FAILED for outcome in done)
    data = {"people": [dataclasses.asdict(outcome) for outcome in done], "failed": failed}
    return Result(data, _table(done, failed), failed=failed > 0)


def _table(outcomes, failed: int) -> str:
    rows = [(str(o.line), o.name, o.status, o.output or o.message) for o in outcomes]
    widths = [max(len(row[column]) for row in [("line", "name", "status"), *rows]) for column in range(3)]
    lines = ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[3]]) for row in rows]
    header = "  ".join(title.ljust(width) for title, width in zip(("line", "name", "status"), widths))
    return "\n".join([header, *lines, f"{len(outcomes) - failed} of {len(outcomes)} people done"])
