"""`idea demo`: a command that this package adds to ID-EA's own."""

from __future__ import annotations

from pathlib import Path

import click

from idea_core.headless.cli.console import Result, progress, reports
from idea_core.headless.cli.grouped import PATH


@click.command()
@click.option("-o", "--output", type=PATH, default="demo", help="Folder for photos, identities, images and the report.")
@click.option("--person", type=click.IntRange(0), default=0, help="Number of the person; no model has seen them.")
@click.option("--photos", "count", type=click.IntRange(1, 8), default=4, help="Number of photos to train on.")
@click.option("--steps", type=click.IntRange(1), default=320, help="Steps of the methods that ID-EA is compared with.")
@click.option("--seed", type=click.IntRange(0, 2**32), default=0, help="Seed of the first image.")
@reports
def demo(output: Path, person: int, count: int, steps: int, seed: int) -> Result:
    """Compare ID-EA with other methods on a drawn person: minutes on a laptop, without any download.

    The base model and the face models are small and come with ID-EA. The methods are ID-EA, ID-EA with a pretrained
    ID-Enhancer, Textual Inversion and Cross Initialization. The report shows images, face similarity, how well the
    images follow the prompt, and times.
    """
    from .demo import MEASURES, STAGES, run
    from .trial import Stranger

    with progress(STAGES, "demo", "stage") as bar:

        def on_stage(what: str) -> None:
            bar.set_postfix_str(what)
            bar.update()

        data = run(output, Stranger(person, count), steps, seed, on_stage)
    width = max(len(row["title"]) for row in data["rows"])
    lines = [" " * width + "".join(f"{measure:>11}" for measure in MEASURES) + "   training"]
    for row in data["rows"]:
        time = "" if row["seconds"] is None else f"{row['seconds']:9.1f} s"
        lines.append(f"{row['title']:<{width}}" + "".join(f"{row[measure]:11.3f}" for measure in MEASURES) + time)
    return Result(data, "\n".join([*lines, f"Report: {data['report']}"]))
