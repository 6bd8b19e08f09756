"""`idea enhancer`"""

from __future__ import annotations

import dataclasses
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ...enhancers.config import DatasetConfig, EnhancerRunConfig, EnhancerTrainConfig
from ...enhancers.drawing import blocks
from ...enhancers.run import EnhancerSpec
from ...files.textfile import read_text
from ...method.anchor import parse_names
from ...training.run import Progress
from ..jobs import FaceSource, ModelSource
from ..jobs.train import require_output
from .console import Result, progress, reports, warn
from .grouped import PATH, grouped, options_of, settings_group
from .options import engine_options, face_options, model_options, prompts_of

if TYPE_CHECKING:
    from ..jobs.enhancer import PeopleJob

WHOLE = "0/1"  # shard


class Pictures(NamedTuple):
    """Whose pictures are made, how, and where they are kept."""

    folder: Path
    values: dict[str, Any]  # of a `DatasetConfig`

    def job(self, model: ModelSource, faces: FaceSource) -> PeopleJob:
        """The pictures of this base model, at its own resolution unless another one is given."""
        from ..jobs.enhancer import PeopleJob
        from .train import native_resolution

        resolution = self.values["resolution"] or native_resolution(model.load())
        config = DatasetConfig(**{**self.values, "resolution": resolution})
        return PeopleJob(self.folder.absolute(), model.absolute(), faces.absolute(), config)


def _pictures(work: Path, names: Path | None, prompts: Path | None, **values: Any) -> Pictures:
    people = parse_names(read_text(names) if names else "")
    return Pictures(work, {**values, "names": people, "prompts": prompts_of(prompts)})


pictures_options = grouped(
    "pictures",
    [
        click.Option(["--work"], type=PATH, default="people", help="Folder for the pictures, which are made once."),
        click.Option(["--names"], type=PATH, help="File of names that the base model can draw, one per line."),
        click.Option(["--prompts"], type=PATH, help="File of prompts with {} for the name, one per line."),
        click.Option(["--resolution"], type=int, help="Size of the images in pixels. Default: the base model's own."),
        *options_of(DatasetConfig, without=["resolution"]),
    ],
    _pictures,
)


@click.group()
def enhancer() -> None:
    """An ID-Enhancer that has seen people: a new person in one step, without training.

    The base model draws people whom it knows by name; from the faces in those pictures the Enhancer learns what a face
    embedding means to this base model. `idea train --enhancer FILE --steps 0` then makes a person of a photo at once,
    and a few steps more start near the goal.
    """


@enhancer.command("train")
@reports
@model_options
@face_options
@pictures_options
@engine_options
@click.option("-o", "--output", type=PATH, required=True, help="File to write.")
@click.option("--pictures-only", is_flag=True, help="Make the pictures and stop.")
@settings_group("when", EnhancerRunConfig)
@click.option(
    "--shard",
    default=WHOLE,
    help="Which people's pictures to make: 0/4, 1/4 … on four machines of one --sampling-batch-size.",
)
@click.option("--start", type=PATH, help="File of an ID-Enhancer to go on from; it has learnt by text already.")
@settings_group("config", EnhancerTrainConfig, options_of(EnhancerTrainConfig, without=["likeness_guidance"]))
def train_enhancer(
    output: Path, pictures_only: bool, shard: str, start: Path | None, model, faces, pictures, config, **how
) -> Result:
    """Draw people by name, keep the pictures whose faces agree, and train.

    What is drawn already is not drawn again, and a training that was stopped goes on when the same command runs again.
    On Ray the pictures are drawn by all machines, which need the package, the model and the work folder under the same
    paths; the training itself runs here.
    """
    from ...enhancers.pretrained import PretrainedEnhancer

    if config.likeness_steps:
        config = dataclasses.replace(config, likeness_guidance=pictures.values["guidance"])
    begun = PretrainedEnhancer.load(start) if start else None
    part = _shard(shard)
    require_output(output)
    cluster = how["engine"].cluster
    if cluster and shard != WHOLE:
        raise click.UsageError("--engine ray shares the work by itself: leave --shard out.")
    job = pictures.job(model, faces)
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

        when = how["when"]
        spec = EnhancerSpec(people, config, when.validate_every, begun)
        trained = job.train(spec, output, when.save_every, on_progress)
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
@reports
@click.argument("file", type=PATH)
@model_options
@face_options
@pictures_options
def evaluate_enhancer(file: Path, model, faces, pictures) -> Result:
    """Mean similarity of instant images to the images of the people held out, beside the base model's own by name."""
    from ...enhancers.pretrained import PretrainedEnhancer

    trained = PretrainedEnhancer.load(file)
    job = pictures.job(model, faces)
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


def _shard(text: str) -> tuple[int, int]:
    try:
        number, of = map(int, text.split("/"))
    except ValueError:
        number, of = 0, 0
    if not 0 <= number < of:
        raise click.UsageError(f"--shard {text}: write 0/4 for the first of four parts.")
    return number, of
