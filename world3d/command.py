"""`idea demo`: a command that this package adds to ID-EA's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from idea_core.headless.cli.console import Result, progress, reports
from idea_core.headless.cli.grouped import PATH

PEOPLE = ("alice", "bob", "carla", "dan")


@click.command()
@click.option("-o", "--output", type=PATH, default="demo", help="Folder for models, identities, images and the report.")
@click.option("--person", type=click.Choice(PEOPLE), default=PEOPLE[0], help="The person; no model has seen them.")
@click.option("--photos", "count", type=click.IntRange(1, 8), default=4, help="Number of photos to train on.")
@click.option("--steps", type=click.IntRange(1), default=320, help="Steps of the methods that ID-EA is compared with.")
@click.option("--seed", type=click.IntRange(0, 2**32), default=0, help="Seed of the first image.")
@click.option("--comfyui", type=PATH, help="Folder of a ComfyUI. Writes the models into it instead of the comparison.")
@reports
def demo(output: Path, person: str, count: int, steps: int, seed: int, comfyui: Path | None) -> Result:
    """Compare ID-EA with other methods on a person in three dimensions: minutes on a laptop, without any download.

    The people, the base model and the face models are small and come with ID-EA. The methods are Textual Inversion,
    Cross Initialization, ID-EA, ID-EA with a pretrained ID-Enhancer, and that ID-Enhancer's answer alone, as it is and
    refined. The report shows images, face similarity, how well the images follow the prompt, and times.

    With --comfyui, the same world is written into a ComfyUI: an ordinary Stable Diffusion 1.x checkpoint (2.1 GB), face
    models, an ID-Enhancer, photos, people, and this pack's examples with them, in its list of workflows.
    """
    from .demo import DRAWING, STAGES, Demo
    from .somebody import everybody

    if comfyui:
        return _into(comfyui, output)
    somebody = next(one for one in everybody(count) if one.folder.name == person)
    with progress(STAGES, "demo", "stage") as bar:

        def on_stage(what: str) -> None:
            bar.set_postfix_str(what)
            bar.update()

        data = Demo(output, somebody, steps, replace(DRAWING, seed=seed)).run(on_stage)
    return Result(data, "\n".join([*_table(data["rows"]), f"Report: {data['report']}"]))


def _table(rows: list[dict]) -> list[str]:
    from .somebody import MEASURES

    width = max(len(row["title"]) for row in rows)
    lines = [" " * width + "".join(f"{measure:>11}" for measure in MEASURES) + "   training"]
    for row in rows:
        time = "" if row["seconds"] is None else f"{row['seconds']:9.1f} s"
        lines.append(f"{row['title']:<{width}}" + "".join(f"{row[measure]:11.3f}" for measure in MEASURES) + time)
    return lines


def _into(comfyui: Path, output: Path) -> Result:
    """The world in a ComfyUI; the small models stay in the output folder."""
    from PIL import Image

    from .comfyui import Contents, write_world
    from .somebody import everybody
    from .world import World, read

    world, photos = World.shipped(output / "models"), {}
    for somebody in everybody(4):
        photos[somebody.folder.name] = [Image.fromarray(read(path)) for path in somebody.photos]
    written = write_world(Contents(world.pipeline, world.faces.folder, world.enhancer, photos), comfyui)
    places = [str(path.relative_to(comfyui)) for path in written]
    said = "Start ComfyUI anew. The examples are in its list of workflows, under idea-world."
    if not any(path.suffix == ".json" for path in written):
        said = "No examples: this pack is not in custom_nodes. Install it there, and run this again."
    return Result({"written": places}, "\n".join(["Written:", *places, "", said]))
