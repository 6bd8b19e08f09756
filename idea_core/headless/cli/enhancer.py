"""`idea enhancer`"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ...enhancers.config import DatasetConfig, EnhancerRunConfig, EnhancerTrainConfig
from ...enhancers.drawing import UsablePeople, blocks
from ...enhancers.run import EnhancerSpec, require_trainable
from ...files.textfile import read_text
from ...method.anchor import parse_names
from ...training.run import Progress
from ..jobs import FaceSource, ModelSource
from ..jobs.train import require_output
from .console import Result, progress, reports, warn
from .grouped import PATH, Paths, Sectioned, grouped, options_of
from .options import engine_options, face_options, model_options, prompts_of

if TYPE_CHECKING:
    from ..jobs.enhancer import PeopleJob

WHOLE = "0/1"  # shard


class Images(NamedTuple):
    """People to draw, and where their images are kept; `values` are a `DatasetConfig`'s."""

    folder: Path
    values: dict[str, Any]

    def job(self, model: ModelSource, faces: FaceSource) -> PeopleJob:
        """The images of this base model, at its own resolution unless another one is set."""
        from ..jobs.enhancer import PeopleJob

        resolution = self.values["resolution"] or model.native_resolution()
        config = DatasetConfig(**{**self.values, "resolution": resolution})
        return PeopleJob(self.folder.absolute(), model.absolute(), faces.absolute(), config)


def _images(work: Path, names: Path | None, prompts: Path | None, **values: Any) -> Images:
    people = parse_names(read_text(names) if names else "")
    return Images(work, {**values, "names": people, "prompts": prompts_of(prompts)})


image_options = grouped(
    "images",
    _images,
    click.Option(["--work"], type=PATH, default="people", help="Folder for the images, which are drawn once."),
    click.Option(["--names"], type=PATH, help="File of names that the base model can draw, one per line."),
    click.Option(["--prompts"], type=PATH, help="File of prompts with {} for the name, one per line."),
    click.Option(["--resolution"], type=int, help="Size of the images in pixels. Default: the base model's own."),
    *options_of(DatasetConfig, without=["resolution"]),
)


@click.group()
def enhancer() -> None:
    """A pretrained ID-Enhancer: a new person in one step, without training.

    The base model draws people whom it knows by name. From the faces in those images the ID-Enhancer learns what a face
    embedding means to this base model. `idea train --enhancer FILE --steps 0` then creates a person from a photo at
    once. A short training improves that person further.
    """


@enhancer.command("train", cls=Sectioned)
@reports
@model_options
@face_options
@image_options
@engine_options
@click.option("-o", "--output", type=PATH, required=True, help="File to write.")
@click.option("--pictures-only", is_flag=True, help="Draw the images and stop.")
@grouped("when", EnhancerRunConfig, *options_of(EnhancerRunConfig))
@click.option("--shard", default=WHOLE, help="Share to draw: 0/4, 1/4 … with the same --sampling-batch-size.")
@click.option(
    "--compile/--no-compile", "compiled", default=None, help="Compile the UNet. Default: on CUDA with Triton."
)
@click.option("--start", type=PATH, help="File of an ID-Enhancer to start from, without text steps.")
@grouped("config", EnhancerTrainConfig, *options_of(EnhancerTrainConfig, without=["likeness_guidance"]))
def train_enhancer(
    output: Path,
    pictures_only: bool,
    shard: str,
    start: Path | None,
    model: ModelSource,
    faces: FaceSource,
    images: Images,
    **how: Any,
) -> Result:
    """Draw people by name, keep the images whose faces agree, and train.

    Images that exist are not drawn again, and a training that was stopped continues when the same command runs again.
    On Ray all machines draw images. They need the package, the model and the work folder under the same paths. The
    training itself runs on this machine.
    """
    from ...enhancers.pretrained import PretrainedEnhancer

    config, when, cluster = how["config"], how["when"], how["engine"].cluster
    if config.likeness_steps:
        config = dataclasses.replace(config, likeness_guidance=images.values["guidance"])
    pretrained = PretrainedEnhancer.load(start) if start else None
    part = _shard(shard)
    require_output(output)
    if cluster and shard != WHOLE:
        raise click.UsageError("--engine ray shares the work by itself: leave --shard out.")
    job = images.job(model, faces)
    people = job.open()
    if not pictures_only:
        require_trainable(job.backbone(), faces.load(), config, pretrained, **job.model.provenance())
    if cluster:
        from ..jobs.ray_engine import draw_on_ray

        drawn = draw_on_ray(job, people, cluster)
    else:
        drawn = job.draw(people, part)
    with progress(sum(map(len, blocks(job.config, part))), "drawing people", "person") as bar:
        usable = UsablePeople(people)
        for number in drawn:
            usable.add(number)
            bar.set_postfix(usable=usable.count, refresh=False)
            bar.update()
    if pictures_only:
        return Result({"folder": str(job.folder)}, f"Images in {job.folder}")
    with progress(config.steps, "training", "step") as bar:

        def on_progress(done: Progress) -> None:
            bar.update(done.step - bar.n)
            if done.loss is not None:
                bar.set_postfix(loss=f"{done.loss:.4f}", refresh=False)

        spec = EnhancerSpec(people, config, when.validate_every, pretrained)
        training = job.train(spec, output, when.save_every, on_progress, how["compiled"]).training
    text = f"Trained across {training['people']} people and {training['num_images']} images: {output}"
    return Result({"output": str(output), **training}, text)


@enhancer.command("mean")
@click.argument("files", type=PATH, nargs=-1, required=True)
@click.option("-o", "--output", type=PATH, required=True, help="File to write.")
@reports
def mean_enhancer(files: Paths, output: Path) -> Result:
    """Average FILES, trained with `--start` from one ID-Enhancer with different seeds; often better than each."""
    from ...enhancers.pretrained import PretrainedEnhancer

    require_output(output)
    PretrainedEnhancer.mean_of([PretrainedEnhancer.load(file) for file in files]).save(output)
    data = {"output": str(output), "files": list(map(str, files))}
    return Result(data, f"Mean of {len(files)} ID-Enhancers: {output}")


@enhancer.command("eval", cls=Sectioned)
@reports
@click.argument("file", type=PATH)
@model_options
@face_options
@image_options
def evaluate_enhancer(file: Path, model: ModelSource, faces: FaceSource, images: Images) -> Result:
    """Mean similarity of instant images to images of the validation people, beside that of images drawn by name."""
    from ...enhancers.pretrained import PretrainedEnhancer
    from ...enhancers.run import validate

    trained = PretrainedEnhancer.load(file)
    job = images.job(model, faces)
    if trained.base_ref.base_hash != job.model.digest:
        warn(f"{file} was trained for {trained.base_checkpoint}, another model.")
    people, backbone = job.open(), job.backbone()
    unseen, enhancer_model = people.pictures("val"), trained.build(backbone.device)
    rows = list(validate(people, unseen, backbone, faces.load(), enhancer_model))
    figures = ("mean_similarity", "by_name", "detected")
    means = {key: sum(float(row[key]) for row in rows) / len(rows) for key in figures}
    lines = [f"{key:<15} {value:.3f}" for key, value in means.items()]
    return Result({**means, "people": rows}, "\n".join([f"{len(rows)} validation people", *lines]))


@enhancer.command("info")
@click.argument("file", type=PATH)
@reports
def enhancer_info(file: Path) -> Result:
    """Show the contents of an ID-Enhancer's FILE."""
    from ...enhancers.pretrained import PretrainedEnhancer

    trained = PretrainedEnhancer.load(file)
    data: dict[str, Any] = {key: value for key, value in trained.metadata().items() if key != "training"}
    data |= {"num_tokens": trained.num_tokens, "bytes": file.stat().st_size, **trained.training}
    width = max(map(len, data))
    return Result(data, "\n".join(f"{key:<{width}}  {value}" for key, value in data.items()))


def _shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or int(match[1]) >= int(match[2]):
        raise click.UsageError(f"--shard {text}: write 0/4 for the first of four parts.")
    return int(match[1]), int(match[2])
