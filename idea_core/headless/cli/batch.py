"""`idea batch`"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from itertools import starmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..jobs import ModelSource, PhotoSource
from .console import Result, progress, reports
from .grouped import PATH, Sectioned, grouped
from .options import PHOTO_OPTIONS, engine_options, face_options, model_options, resolution_option, train_options

if TYPE_CHECKING:
    from ..jobs.batch import Outcome


@click.command(cls=Sectioned)
@reports
@click.argument("people", type=PATH)
@model_options
@click.option("--save-dir", type=PATH, default="people", help="Folder for the identities.")
@engine_options
@grouped("photos", PhotoSource, *PHOTO_OPTIONS)
@resolution_option
@face_options
@train_options
def batch(people: Path, save_dir: Path, model: ModelSource, photos: PhotoSource, **how: Any) -> Result:
    """Train all PEOPLE of a file with one JSON object per line.

    \b
    {"name": "alice", "photos": "photos/alice"}
    {"name": "bob", "photos": ["bob1.jpg", "bob2.jpg"], "steps": 50, "seed": 7, "output": "robert.safetensors"}

    Paths are relative to the file. A bad entry does not stop the others. If the same command runs again, it skips the
    finished people. On Ray a training whose worker dies starts again on another one. There every machine needs the
    package, the model, the photos and the output folder under the same paths.
    """
    import torch

    from ..jobs.batch import FAILED, read_people, train_entry
    from ..jobs.sources import forget_models

    engine, training, resolution = how["engine"], how["training"], how["resolution"]
    cluster, model = engine.cluster, model.absolute()
    if resolution is None:
        resolution = (dataclasses.replace(model, device="cpu") if cluster else model).native_resolution()
        if cluster:
            forget_models()  # only the workers need the models
    photos = dataclasses.replace(photos, resolution=resolution)
    common = training.job(photos, name="common", output=save_dir, model=model, faces=how["faces"].absolute())
    jobs, done = read_people(people.absolute(), common, save_dir.absolute())
    _ = model.digest  # computed once and sent to all machines with the model
    outcomes: Iterator[Outcome]
    if cluster:
        from ..jobs.ray_engine import train_on_ray

        outcomes = train_on_ray(jobs, cluster)
    else:
        torch.set_num_threads(engine.threads)
        outcomes = starmap(train_entry, jobs.items())
    with progress(len(jobs), "people", "person") as bar:
        for outcome in outcomes:
            done.append(outcome)
            bar.update()
    done.sort(key=lambda outcome: outcome.line)
    failed = sum(outcome.status == FAILED for outcome in done)
    data = {"people": [dataclasses.asdict(outcome) for outcome in done], "failed": failed}
    return Result(data, _table(done, failed), failed=failed > 0)


def _table(outcomes: Sequence[Outcome], failed: int) -> str:
    rows = [("line", "name", "status", ""), *((str(o.line), o.name, o.status, o.output or o.message) for o in outcomes)]
    widths = [max(map(len, column)) for column in list(zip(*rows))[:3]]
    lines = ["  ".join([*map(str.ljust, row, widths), row[3]]).rstrip() for row in rows]
    return "\n".join([*lines, f"{len(outcomes) - failed} of {len(outcomes)} people done"])
