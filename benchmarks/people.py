"""How an Enhancer across people depends on how many people it sees, and how many pictures of each.

    python -m miniature.train_enhancer --shard 0/1   draws the pictures, where they are not there yet
    python -m benchmarks.people [--shard 0/2]        trains an Enhancer for each row, by text alone, and measures it

Adds its lines to `benchmarks/results/people.jsonl`; rows that are there already are not trained again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import torch

from idea_core.across import AcrossConfig, AcrossTrainer
from idea_core.anchor import cross_initialise
from idea_core.diffusers_backbone import DiffusersBackbone, load_pipeline
from idea_core.people_pictures import PeoplePictures
from idea_core.pretrained import PretrainedEnhancer
from miniature.train_enhancer import PER_PERSON, people_job
from miniature.trial import NAME, measure, prompts_of
from miniature.world import BASE, all_names, draw

from .study import RESULTS, UNSEEN, add_lines, prepared, stranger

PEOPLE = RESULTS / "people.jsonl"
LESSON = AcrossConfig(steps=250, text_steps=250)  # short: what is compared is how many people they are taken from
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
    pictures: int = PER_PERSON
    seed: int = 0

    @property
    def key(self) -> str:
        return json.dumps(asdict(self))


ROWS = (Row(0), Row(50), Row(684), Row(200), Row(3000), Row(100), Row(0, 2), Row(684, 2))


@click.command()
@click.option("--work", type=click.Path(path_type=Path), default=Path("work/enhancer"), help="Folder of the pictures.")
@click.option("--shard", default="0/1", help="Which part of the rows, as 0/2 and 1/2.")
@click.option("--threads", type=int, default=2, help="Of the processor.")
def main(work: Path, shard: str, threads: int) -> None:
    torch.set_num_threads(threads)
    job = people_job(work)
    pictures = job.open(job.model.digest()).pictures()
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
    config = AcrossConfig(**{**LESSON.as_dict(), "seed": seed})
    trainer = AcrossTrainer(backbone, cross_initialise(backbone, all_names(), 2), pictures, config)
    trainer.run()
    enhancer = PretrainedEnhancer.of(trainer.model, backbone)
    return [instant(drawing, enhancer, person) for person in UNSEEN]


def instant(drawing, enhancer: PretrainedEnhancer, number: int) -> dict[str, float]:
    person = stranger(number, PHOTOS)
    identity = enhancer.identity(NAME, prepared(number, PHOTOS).embeds.mean)
    result = measure(draw(drawing, [identity], prompts_of(person.asked, identity.trigger)), person, person.asked)
    return {"person": number, **{key: round(value, 5) for key, value in result.items()}}


def rows_of(lines: Sequence[dict]) -> list[dict]:
    """In the order of people and pictures; 0 people, which are all, last."""
    return sorted(lines, key=lambda line: (line["people"] or 10**6, line["pictures"], line["seed"]))


if __name__ == "__main__":
    main()
