"""Train the world's ID-Enhancer on the base model's own images of its people:  python -m miniature.train_enhancer

It does what `idea enhancer train` and `idea enhancer mean` do, with the world's prompts. Images and trainings that are
there are not made again. The likeness steps draw a million more images: they need a GPU.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
import torch

from idea_core.enhancers.config import DatasetConfig, EnhancerTrainConfig
from idea_core.enhancers.pretrained import PretrainedEnhancer
from idea_core.enhancers.run import EnhancerSpec
from idea_core.headless.jobs.enhancer import PeopleJob
from idea_core.headless.jobs.sources import ModelSource
from idea_core.training.run import Progress

from .render import SIZE
from .training import WORK
from .world import AT_ONCE, BASE, DRAWING_STEPS, FACE_MODELS, GUIDANCE, all_names, portraits

NUM_SYNTHETIC = 12_000  # people with made-up names
PER_PERSON = 4
TEXT_STEPS, STEPS = 2200, 3800  # text steps, and all steps
ROUNDS = ((850, 3e-4), (258, 1e-4))  # likeness steps of each training, and their learning rate
SEEDS, LIKENESS_BATCH = 4, 256  # trainings of a round, whose mean is its result; their batch size
PROMPTS = 61  # not a multiple of PER_PERSON, so that people have different prompts


@click.command()
@click.option("--work", type=click.Path(path_type=Path), default=WORK / "enhancer", help="Folder for the images.")
@click.option("--output", type=click.Path(path_type=Path), default=WORK / "models/enhancer.safetensors")
@click.option("--shard", default=None, help="Only draw the images of this part of the people: 0/2, 1/2 …")
@click.option("--device", default="cpu")
@click.option("--threads", type=int, default=2, help="CPU threads.")
@click.option("--seed", type=int, default=0)
def main(work: Path, output: Path, shard: str | None, device: str, threads: int, seed: int) -> None:
    torch.set_num_threads(threads)
    job = people_job(work, device)
    people = job.open()
    part = tuple(map(int, shard.split("/"))) if shard else (0, 1)
    for number in job.draw(people, part):
        print(f"person {number}", flush=True)
    if shard:
        return

    def train(config: EnhancerTrainConfig, name: str, start: PretrainedEnhancer | None = None) -> PretrainedEnhancer:
        def on_progress(done: Progress) -> None:
            print(f"{name}: step {done.step}  loss {done.loss}", flush=True)

        return job.train(EnhancerSpec(people, config, start=start), work / f"{name}.safetensors", 200, on_progress)

    trained = train(EnhancerTrainConfig(steps=STEPS, text_steps=TEXT_STEPS, seed=seed), "by text and pictures")
    for number, (steps, lr) in enumerate(ROUNDS):
        config = EnhancerTrainConfig(
            steps=steps,
            likeness_steps=steps,
            batch_size=LIKENESS_BATCH,
            likeness_lr=lr,
            likeness_guidance=GUIDANCE,
        )
        configs = [replace(config, seed=seed + 10 * number + another) for another in range(SEEDS)]
        names = [f"round {number}, seed {config.seed}" for config in configs]
        trained = PretrainedEnhancer.mean_of([train(*each, trained) for each in zip(configs, names)])
    trained.save(output)


def people_job(folder: Path, device: str = "cpu") -> PeopleJob:
    """The images of all named and synthetic people."""
    config = DatasetConfig(
        names=all_names(),
        num_synthetic=NUM_SYNTHETIC,
        prompts=portraits(PROMPTS),
        images_per_person=PER_PERSON,
        resolution=SIZE,
        sampling_steps=DRAWING_STEPS,
        order=1,  # that of all figures of the study
        guidance=GUIDANCE,
        sampling_batch_size=2 * AT_ONCE,
    )
    return PeopleJob(folder, ModelSource(BASE, dtype="bf16", device=device), FACE_MODELS, config)


if __name__ == "__main__":
    main()
