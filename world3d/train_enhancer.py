"""Train the world's ID-Enhancer on the base model's own images of its people:  python -m world3d.train_enhancer MODELS

MODELS is a folder with `base/` and `faces/`; the ID-Enhancer is written beside them. This is what `idea enhancer train`
does, with the world's names and prompts. Images and trainings that are there are not made again.
"""

from __future__ import annotations

from pathlib import Path

import click
import torch

from idea_core.enhancers.config import DatasetConfig, EnhancerTrainConfig
from idea_core.enhancers.run import EnhancerSpec
from idea_core.headless.jobs.enhancer import PeopleJob
from idea_core.headless.jobs.sources import ModelSource
from idea_core.training.run import Progress

from .names import known_names
from .scenes import SIZE, portraits
from .shipped import ENHANCER
from .world import DRAWING_STEPS, GUIDANCE, World

NUM_SYNTHETIC = 2_000  # people with made-up names
PER_PERSON = 4
TEXT_STEPS, STEPS = 2200, 3000  # text steps, and all steps
PROMPTS = 61  # not a multiple of PER_PERSON, so that people have different prompts
AT_ONCE = 24
MIN_SIMILARITY = 0.25  # to the person's other images; strangers have less


@click.command()
@click.argument("models", type=click.Path(exists=True, path_type=Path))
@click.option("--work", type=click.Path(path_type=Path), default=Path("work/enhancer"), help="Folder for the images.")
@click.option("--synthetic", type=click.IntRange(0), default=NUM_SYNTHETIC, help="Number of people with made-up names.")
@click.option("--text-steps", type=click.IntRange(0), default=TEXT_STEPS)
@click.option("--steps", type=click.IntRange(1), default=STEPS)
@click.option("--dtype", type=click.Choice(["fp32", "bf16"]), default="bf16", help="Of the base model while it draws.")
@click.option("--threads", type=int, default=2, help="CPU threads.")
@click.option("--seed", type=int, default=0)
def main(
    models: Path, work: Path, synthetic: int, text_steps: int, steps: int, dtype: str, threads: int, seed: int
) -> None:
    torch.set_num_threads(threads)
    world = World(models)
    job = PeopleJob(work, ModelSource(world.base, dtype, "cpu"), world.faces, people_config(synthetic))
    people = job.open()
    for number in job.draw(people):
        print(f"person {number}", flush=True)

    def on_progress(done: Progress) -> None:
        print(f"step {done.step}  loss {done.loss}", flush=True)

    config = EnhancerTrainConfig(steps=steps, text_steps=text_steps, seed=seed)
    job.train(EnhancerSpec(people, config), models / ENHANCER, 200, on_progress)


def people_config(synthetic: int) -> DatasetConfig:
    """The images of all named and synthetic people."""
    return DatasetConfig(
        names=known_names(),
        num_synthetic=synthetic,
        prompts=portraits(PROMPTS),
        images_per_person=PER_PERSON,
        resolution=SIZE,
        sampling_steps=DRAWING_STEPS,
        guidance=GUIDANCE,
        sampling_batch_size=2 * AT_ONCE,
        min_similarity=MIN_SIMILARITY,
    )


if __name__ == "__main__":
    main()
