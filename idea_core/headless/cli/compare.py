"""`idea compare`"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click import IntRange, Option

from ...enhancers.config import RefineConfig
from ...files.textfile import read_text
from ...method.anchor import parse_names
from ...text.captions import require_prompts
from ...training.methods import METHODS, Method, parse_methods, steps_of
from ..config import GenerateConfig
from ..jobs import FaceSource, ModelSource, PhotoSource
from .console import Result, progress, reports, warn
from .grouped import PATH, Sectioned, grouped, options_of
from .options import (
    PHOTO_OPTIONS,
    Engine,
    engine_options,
    face_options,
    model_options,
    prompts_of,
    resolution_option,
    witness_option,
)

if TYPE_CHECKING:
    from ..jobs.trial import Trial


def _drawing(sampling_steps: int, **values: Any) -> GenerateConfig:
    return GenerateConfig(steps=sampling_steps, **values)


def _what(
    prompts: Path | None,
    names: Path | None,
    enhancer: Path | None,
    clip: Path | None,
    refine_prompts: Path | None,
    **values: Any,
) -> dict[str, Any]:
    """The fields of a `Comparison` that are read from files."""
    from ...evaluation import PROTOCOL_PROMPTS
    from ..jobs.comparison import REFINING_SEED

    lines = read_text(prompts).split("\n") if prompts else PROTOCOL_PROMPTS
    chosen = tuple(line.strip() for line in lines if line.strip())
    require_prompts(chosen, "person")
    files = {"enhancer": enhancer and enhancer.absolute(), "clip": clip and clip.absolute()}
    refining = RefineConfig(prompts=prompts_of(refine_prompts), seed=REFINING_SEED)
    names_read = parse_names(read_text(names) if names else "")
    return {"prompts": chosen, "names": names_read, "refining": refining, **files, **values}


def chosen_methods(methods: str | None, enhancer: Path | None, steps: int | None) -> dict[str, Method]:
    """Methods by name: out of a list of names, or out of a file; without either all for which there is what they need.

    Raises:
        UsageError: an unknown name, or a method that needs an ID-Enhancer without one.
    """
    if methods is None:
        found = {name: method for name, method in METHODS.items() if enhancer or not method.enhancer}
    elif Path(methods).is_file():
        found = parse_methods(read_text(methods))
    else:
        names = [name.strip() for name in methods.split(",")]
        unknown = [name for name in names if name not in METHODS]
        if unknown:
            raise click.UsageError(f"--methods: no {', '.join(unknown)}. Choose among {', '.join(METHODS)}.")
        found = {name: METHODS[name] for name in names}
    without = [name for name, method in found.items() if method.enhancer and not enhancer]
    if without or not found:
        raise click.UsageError(f"{', '.join(without)} needs --enhancer." if without else "--methods: none in the file.")
    return {name: steps_of(method, steps) for name, method in found.items()}


@click.command(cls=Sectioned)
@reports
@model_options
@click.option("--people", "place", type=PATH, required=True, help="Folder with a sub-folder of photos per person.")
@click.option(
    "--methods",
    help=f"Names out of {', '.join(METHODS)}; or a file with a JSON object per line. Default: all, the last three "
    "only with --enhancer.",
)
@click.option("--steps", type=IntRange(1), help="Training steps of all methods. Default: each method's own.")
@click.option("--against", help="Method that the others are subtracted from. Default: id-ea, or the last one.")
@grouped(
    "what",
    _what,
    Option(["--prompts"], type=PATH, help="File of prompts, one per line, {} for the person. Default: 20 of the pack."),
    Option(["--count", "per_prompt"], type=IntRange(1), default=4, help="Images per prompt."),
    Option(["--names"], type=PATH, help="File of celebrity names, one per line, that the person starts from."),
    Option(["--enhancer"], type=PATH, help="Pretrained ID-Enhancer, for the methods that start there."),
    Option(["--refine-prompts"], type=PATH, help="File of prompts that the method refined looks at the person by."),
    Option(["--draw-dtype", "drawing_dtype"], help="Precision of the images, such as bf16. Default: the training's."),
    Option(["--clip"], type=PATH, help="Folder of a CLIP model in transformers' format, for prompt similarity."),
)
@click.option("--repeats", type=IntRange(1), default=1, help="Trainings of each person by each method, by seed.")
@click.option("-o", "--output", type=PATH, default="comparison", help="Folder for people, images and the report.")
@grouped(
    "drawing",
    _drawing,
    Option(["--sampling-steps"], type=IntRange(1), default=GenerateConfig().steps, help="Sampling steps."),
    *options_of(GenerateConfig, without=["steps"]),
)
@engine_options
@grouped("photos", PhotoSource, *PHOTO_OPTIONS)
@resolution_option
@face_options
@witness_option
def compare(place: Path, output: Path, model: ModelSource, faces: FaceSource, engine: Engine, **how: Any) -> Result:
    """Compare methods on many people with one base model, by the Celeb Basis protocol.

    Each person is trained by Textual Inversion, Cross Initialization, Celeb Basis, ID-EA as published, and ID-EA; then
    drawn, and measured: face similarity, detection, prompt similarity, time and memory. The report has a table, paired
    intervals and contact sheets.

    A person's folder may also hold `references/` (photos that images are compared with, and that no training sees),
    `prompts.txt` (prompts of this person alone) and `settings.json` (training settings, such as {"seed": 3}).

    The same command goes on where it was stopped, and skips what is done. A bad folder does not stop the others. On Ray
    every machine needs the package, the models, the photos and the output folder under the same paths.
    """
    import torch

    from ..jobs.compare_report import write_comparison, write_tables
    from ..jobs.comparison import Comparison
    from ..jobs.people import find_people
    from ..jobs.sources import forget_models
    from ..jobs.trial import trials_of

    what, faces, model = how["what"], faces.absolute(), model.absolute()
    methods = chosen_methods(how["methods"], what["enhancer"], how["steps"])
    against = how["against"] or ("id-ea" if "id-ea" in methods else list(methods)[-1])
    if against not in methods:
        raise click.UsageError(f"--against {against}: choose among {', '.join(methods)}.")
    people, faults = find_people(place.absolute())
    for name, message in faults.items():
        warn(f"{name} is left out. {message}")
    resolution = how["resolution"]
    if resolution is None:
        resolution = (dataclasses.replace(model, device="cpu") if engine.cluster else model).native_resolution()
        if engine.cluster:
            forget_models()  # only the workers need the models
    what["refining"] = dataclasses.replace(what["refining"], resolution=resolution, guidance=how["drawing"].guidance)
    comparison = Comparison(
        folder=output.absolute(),
        model=model,
        faces=faces,
        photos=dataclasses.replace(how["photos"], resolution=resolution),
        methods=methods,
        drawing=how["drawing"],
        witness=faces.other(how["witness_pack"]) if how["witness_pack"] else None,
        **what,
    )
    if not engine.cluster:
        torch.set_num_threads(engine.threads)
    trials, results = list(trials_of(comparison, people, how["repeats"])), []
    of_a_person = len(methods) * how["repeats"]
    _ = model.digest, faces.digest()  # computed once, and sent to all machines
    with progress(len(trials), "comparing", "trial") as bar:
        for result in _results(trials, engine):
            results.append(result)
            said = f"{result['person']}, {result['method']}"
            bar.set_postfix_str(said, refresh=False)
            bar.update()
            if bar.disable:  # no terminal, but the log of a job
                click.echo(f"{len(results)} of {len(trials)} trials: {said}{outcome(result)}", err=True)
            if len(results) % of_a_person == 0:
                write_tables(comparison, people, results, against)
    report = write_comparison(comparison, people, results, against, faults)
    failed = len(report.failed) + len(faults)
    return Result({"folder": str(comparison.folder), "faults": faults, **report.as_json()}, report.text, failed > 0)


def outcome(result: Mapping[str, Any]) -> str:
    """What a line of a log says of a trial."""
    if "error" in result:
        return f": {result['error']}"
    return f": identity {result['mean_similarity_strict']:.3f}, {result['seconds']:.0f} s of training"


def _results(trials: Sequence[Trial], engine: Engine) -> Iterator[dict[str, Any]]:
    from ..jobs.trial import run_trial

    if engine.cluster:
        from ..jobs.ray_engine import compare_on_ray

        return compare_on_ray(trials, engine.cluster)
    return map(run_trial, trials)
