"""Train the world's ID-Enhancer on the base model's own pictures of its people:  python -m miniature.train_enhancer

What `idea enhancer train` does, in the world's own words. Pictures that are there already are not drawn again.
"""

from __future__ import annotations

from pathlib import Path

import click
import torch

from idea_core.across import AcrossConfig
from idea_core.captions import PLACEHOLDER
from idea_core.jobs.enhancer import PeopleJob
from idea_core.jobs.sources import ModelSource
from idea_core.people import PeopleConfig

from .render import SIZE
from .world import AT_ONCE, BASE, FACE_MODELS, GUIDANCE, all_names, draw_photos

INVENTED = 12_000  # people besides those whom the base model has seen
PER_PERSON = 4
DRAWING_STEPS = 10  # people come out as alike as after twice as many
TEXT_STEPS, STEPS = 2200, 3800
PROMPTS = 61  # no multiple of the pictures of a person, so that people differ in them


@click.command()
@click.option("--work", type=click.Path(path_type=Path), default=Path("work/enhancer"), help="Folder for the pictures.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("work/enhancer/enhancer.safetensors"))
@click.option("--shard", default=None, help="Only draw pictures, of this part of the people: 0/2, 1/2 …")
@click.option("--threads", type=int, default=2, help="Of the processor.")
@click.option("--seed", type=int, default=0)
def main(work: Path, output: Path, shard: str | None, threads: int, seed: int) -> None:
    torch.set_num_threads(threads)
    job = people_job(work)
    digest = job.model.digest()
    people = job.open(digest)
    part = tuple(map(int, shard.split("/"))) if shard else (0, 1)
    for number in job.draw(people, part):
        print(f"person {number}", flush=True)
    if not shard:
        config = AcrossConfig(steps=STEPS, text_steps=TEXT_STEPS, seed=seed)
        job.train(people, config, digest, output, 200, 0, lambda step, loss: print(f"step {step}  loss {loss:.4f}"))


def people_job(folder: Path) -> PeopleJob:
    """The pictures of all named people, and of more of them."""
    scenes = draw_photos(PROMPTS, torch.Generator().manual_seed(6))
    config = PeopleConfig(
        names=all_names(),
        invented=INVENTED,
        prompts=tuple(scenes.caption(number, PLACEHOLDER) for number in range(PROMPTS)),
        per_person=PER_PERSON,
        resolution=SIZE,
        sampling_steps=DRAWING_STEPS,
        guidance=GUIDANCE,
        at_once=2 * AT_ONCE,
    )
    return PeopleJob(folder, ModelSource(BASE, dtype="bf16", device="cpu"), FACE_MODELS, config)


if __name__ == "__main__":
    main()
