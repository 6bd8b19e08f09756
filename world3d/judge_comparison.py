"""A comparison of methods by judges that nothing ever asked:  python -m world3d.judge_comparison PEOPLE COMPARISON

PEOPLE are folders of `world3d.photos`, COMPARISON is the folder that `idea compare` wrote, and `--networks` that of
`tools/real_faces.py`.  Prints a line of JSON for each method and each bound: means over people, with half of a 95 %
interval.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import torch

from idea_core.evaluation.paired import estimate
from idea_core.headless.jobs.people import Person, find_people
from miniature.images import to_signed

from .measure_base import Eye
from .obedience import judge, right
from .scenes import asked_for
from .somebody import TRUE
from .world import read


@click.command()
@click.argument("people", type=click.Path(exists=True, path_type=Path))
@click.argument("comparison", type=click.Path(exists=True, path_type=Path))
@click.option("--networks", type=click.Path(exists=True, path_type=Path), required=True, help="Folder of the judges.")
def main(people: Path, comparison: Path, networks: Path) -> None:
    eye = Eye.of(networks)
    found, _ = find_people(people)
    references = {one.name: eye.embed(list(map(read, one.references))) for one in found}
    measured: dict[str, list[dict[str, float]]] = {}
    for number, one in enumerate(found):
        images = {place.name: sorted(place.glob("*.png")) for place in (comparison / "images" / one.name).iterdir()}
        images["true pictures"] = sorted((people / one.name / TRUE).glob("*"))
        images["another person"] = sorted((people / found[number - 1].name / TRUE).glob("*"))
        for method, files in images.items():
            if files:
                result = _measures(eye, one, references[one.name], list(map(read, files)), method != "another person")
                measured.setdefault(method, []).append(result)
    for method, rows in measured.items():
        means = {key: estimate([row[key] for row in rows]) for key in rows[0]}
        said = {key: [round(value.mean, 4), value.half and round(value.half, 4)] for key, value in means.items()}
        print(json.dumps({"method": method, "people": len(rows), **said}), flush=True)


def _measures(
    eye: Eye, person: Person, references: dict[str, np.ndarray], images: Sequence[np.ndarray], asked: bool
) -> dict[str, float]:
    """Mean similarity of images to a person's references by each judge, no face as 0; detection; obedience."""
    seen = eye.embed(list(images))
    result = {name: similarity(seen[name], references[name]) for name in seen} | {"detected": eye.found}
    if asked:
        each = len(images) // len(person.prompts)
        wanted = torch.tensor([asked_for(prompt) for prompt in person.prompts for _ in range(each)])
        answers = right(judge(), to_signed(images), wanted)
        result["obedience"] = float(torch.stack(list(answers.values())).mean())
    return result


def similarity(images: np.ndarray, references: np.ndarray) -> float:
    """Mean cosine of embeddings (N, d) to the references (R, d) that have a face; images without a face count as 0."""
    known = references[~np.isnan(references).any(1)]
    lengths = np.linalg.norm(images, axis=1)[:, None] * np.linalg.norm(known, axis=1)[None]
    return float(np.nan_to_num(images @ known.T / lengths).mean())


if __name__ == "__main__":
    main()
