"""How an Enhancer across people depends on how many people it sees, and how many pictures of each.

    python -m benchmarks.people

Draws the people's pictures, then trains an Enhancer for each row, by text alone, and measures it. Adds its lines to
`benchmarks/results/people.jsonl`; what is there already is neither drawn nor trained again. The first rows want the
pictures of all shards.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
import torch

from idea_core.enhancers.config import EnhancerTrainConfig
from idea_core.enhancers.dataset import PeoplePictures
from idea_core.enhancers.pretrained import PretrainedEnhancer
from idea_core.enhancers.trainer import EnhancerTrainer
from idea_core.headless.diffusers import DiffusersBackbone, load_pipeline
from idea_core.method.anchor import cross_initialise
from miniature.train_enhancer import people_job
from miniature.trial import NAME, measure, prompts_of
from miniature.world import BASE, all_names, draw

from .study import RESULTS, UNSEEN, add_lines, prepared, stranger

PEOPLE = RESULTS / "people.jsonl"
LESSON = EnhancerTrainConfig(
    steps=250, text_steps=250
)  # short: what is compared is how many people they are taken from
PICTURES, DRAWING_STEPS, INVENTED = 3, 7, 1316  # fewer than the bundled Enhancer has seen, for the same reason
PHOTOS = 4


@dataclass(frozen=True)
class Row:
    """What an Enhancer is trained on.

    Attributes:
        people: how many; 0: all.
        pictures: of each.
        seed: of the training.
    """

    people: int
    pictures: int = PICTURES
    seed: int = 0

    @property
    def key(self) -> str:
        return json.dumps(asdict(self))


ROWS = (
    *(Row(people) for people in (0, 50, 684, 200, 100, 400)),
    *(Row(people, seed=seed) for seed in (1, 2) for people in (684, 50)),
    Row(684, 2),
)


@click.command()
@click.option("--work", type=click.Path(path_type=Path), default=Path("work/people"), help="Folder for the pictures.")
@click.option("--shard", default="0/1", help="Which part of the rows, as 0/2 and 1/2.")
@click.option("--threads", type=int, default=2, help="Of the processor.")
def main(work: Path, shard: str, threads: int) -> None:
    torch.set_num_threads(threads)
    job = people_job(work)
    config = replace(job.config, num_synthetic=INVENTED, images_per_person=PICTURES, sampling_steps=DRAWING_STEPS)
    job = replace(job, config=config)
    people = job.open()
    for number in job.draw(people, tuple(map(int, shard.split("/")))):
        click.echo(f"person {number}")
    pictures = people.pictures()
    backbone, drawing = DiffusersBackbone(load_pipeline(BASE)), load_pipeline(BASE, torch.bfloat16)

    def line_of(row: Row) -> dict[str, Any]:
        persons = measured(backbone, drawing, first(pictures, row), row.seed)
        return {"key": row.key, **asdict(row), "persons": persons}

    add_lines(ROWS, PEOPLE, shard, line_of)


def first(pictures: PeoplePictures, row: Row) -> PeoplePictures:
    """The first pictures of the first people."""
    people = row.people or len(pictures.names)
    places = [0] * len(pictures.names)
    chosen = []
    for index, person in enumerate(pictures.people.tolist()):
        if person < people and places[person] < row.pictures:
            chosen.append(index)
        places[person] += 1
    return PeoplePictures(
        pictures.latents[chosen],
        pictures.faces[chosen],
        pictures.people[chosen],
        [pictures.prompts[index] for index in chosen],
        pictures.names[:people],
    )


def measured(backbone: DiffusersBackbone, drawing, pictures: PeoplePictures, seed: int) -> list[dict[str, float]]:
    """Train, and measure people of whom the Enhancer has seen nothing, without any training on them."""
    config = EnhancerTrainConfig(**{**LESSON.as_dict(), "seed": seed})
    trainer = EnhancerTrainer(backbone, cross_initialise(backbone, all_names(), 2), pictures, config)
    trainer.run()
    enhancer = PretrainedEnhancer.of(trainer.model, backbone)
    return [instant(drawing, enhancer, person) for person in UNSEEN]


def instant(drawing, enhancer: PretrainedEnhancer, number: int) -> dict[str, float]:
    person = stranger(number, PHOTOS)
    identity = enhancer.identity(NAME, prepared(number, PHOTOS).embeds.mean)
    result = measure(draw(drawing, [identity], prompts_of(person.asked, identity.trigger)), person, person.asked)
    return {"person": number, **{key: round(value, 5) for key, value in result.items()}}


def rows_of(lines: Sequence[dict]) -> list[tuple[int, int, list[list[dict]]]]:
    """People, pictures of each, and what was measured with each seed; 0 people, which are all, last."""
    rows: dict[tuple[int, int], list[list[dict]]] = {}
    for line in sorted(lines, key=lambda line: (line["people"] or 10**6, line["pictures"], line["seed"])):
        rows.setdefault((line["people"], line["pictures"]), []).append(line["persons"])
    return [(*key, seeds) for key, seeds in rows.items()]


if __name__ == "__main__":
    main()
