"""How well the base model draws its named people and obeys:  python -m world3d.measure_base BASE --networks FOLDER

`tools/real_faces.py` fetches the judges to FOLDER.  Bounds stand beside it: two true pictures of one person, and of two
people.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import cv2
import numpy as np
import torch
from diffusers import DiffusionPipeline

from miniature.images import to_signed

from .judges import DlibJudge, HseJudge, PackJudge, cosines, shown
from .obedience import judge, obeyed, right, shares, through
from .people import named_people
from .picture import picture, prepare
from .scenes import ASKED, SIZE, draw_scene
from .train_judge import indices

SEED = 11
AT_ONCE = 24  # pictures that are drawn together
COLUMNS = 12  # of the contact sheet
EXPRESSION = list(ASKED).index("expression")


@click.command()
@click.argument("base", type=click.Path(exists=True, path_type=Path))
@click.option("--networks", type=click.Path(exists=True, path_type=Path), required=True, help="Folder of the judges.")
@click.option("--people", "count", type=int, default=48)
@click.option("--guidance", type=float, multiple=True, default=(3.0,))
@click.option("--steps", type=int, default=20, help="Sampling steps.")
@click.option("--sheet", type=click.Path(path_type=Path), help="File for a contact sheet: true pictures, then drawn.")
def main(base, networks, count, guidance, steps, sheet) -> None:
    known, rng = named_people(), np.random.default_rng(SEED)
    chosen = [known[number] for number in rng.permutation(len(known))[:count]]
    scenes = [draw_scene(rng) for _ in chosen]
    portraits = [prepare(person.person) for person in chosen]
    truth = [picture(portrait, scene) for portrait, scene in zip(portraits, scenes)]
    others = [picture(portrait, draw_scene(rng)) for portrait in portraits]
    eye = Eye.of(networks)
    reference, again = eye.embed(others), eye.embed(truth)
    bounds = {name: [cosines(reference[name], again[name]), cosines(reference[name], np.roll(again[name], 1, 0))]
              for name in eye.judges}  # fmt: skip
    wanted = torch.tensor([indices(scene) for scene in scenes])
    pipeline = DiffusionPipeline.from_pretrained(base, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    signed = to_signed(truth)
    behind = right(judge(), through(pipeline.vae, signed), wanted)
    said = {
        "same person, another person": bounds,
        "judge on true pictures": obeyed(judge(), signed, wanted),
        "judge on true pictures behind the VAE": shares(behind),
    }
    print(json.dumps(said), flush=True)
    named, readable = wanted[:, EXPRESSION] > 0, behind["expression"] > 0
    prompts = [scene.caption(person.name) for scene, person in zip(scenes, chosen)]
    for scale in guidance:
        drawn = draw(pipeline, prompts, scale, steps)
        embeds = eye.embed(drawn)
        identity = {name: cosines(reference[name], embeds[name]) for name in eye.judges}
        result = {"guidance": scale, "identity": identity, "detected": eye.found}
        seen = right(judge(), to_signed(drawn), wanted)
        seen["expression, where the prompt names one"] = seen["expression"][named]
        seen["expression, where the true one is read right behind the VAE"] = seen["expression"][readable]
        print(json.dumps(result | shares(seen)), flush=True)
    if sheet:
        write_sheet([truth, drawn], sheet)


class Eye:
    """Several judges of likeness, to whom the pack's detector shows the largest face."""

    def __init__(self, judges: dict):
        self.judges, self.found = judges, 0.0

    @classmethod
    def of(cls, networks: Path) -> Eye:
        """All judges by other makers, out of the folder of `tools/real_faces.py`."""
        pack, dlib = PackJudge(networks / "faceplugin"), DlibJudge(networks / "dlib")
        return cls({"pack": pack, "dlib": dlib, "hse": HseJudge(networks / "hse")})

    def embed(self, pictures: list[np.ndarray]) -> dict[str, np.ndarray]:
        """Embeddings (N, d) by judge, of no number where no face is found; `found` is the share with one."""
        rows: dict[str, list[np.ndarray | None]] = {name: [] for name in self.judges}
        for small in pictures:
            large = shown(small)
            face = self.judges["pack"].find(large)
            for name, net in self.judges.items():
                rows[name].append(None if face is None else net.embed(large, face.keypoints))
        self.found = round(float(np.mean([row is not None for row in rows["pack"]])), 4)
        width = {name: next((len(row) for row in some if row is not None), 1) for name, some in rows.items()}
        return {
            name: np.stack([np.full(width[name], np.nan) if row is None else row for row in some])
            for name, some in rows.items()
        }


def draw(pipeline, prompts: list[str], guidance: float, steps: int) -> list[np.ndarray]:
    """A picture (S, S, 3) of bytes of each prompt; seeds count up."""
    drawn = []
    for begin in range(0, len(prompts), AT_ONCE):
        part = prompts[begin : begin + AT_ONCE]
        generators = [torch.Generator().manual_seed(SEED + begin + number) for number in range(len(part))]
        sizes = {"height": SIZE, "width": SIZE, "num_inference_steps": steps, "guidance_scale": guidance}
        drawn += [np.asarray(image) for image in pipeline(part, generator=generators, **sizes).images]
    return drawn


def write_sheet(rows: list[list[np.ndarray]], path: Path) -> None:
    """Rows of pictures under each other, `COLUMNS` at a time."""
    lines = []
    for begin in range(0, len(rows[0]) // COLUMNS * COLUMNS, COLUMNS):
        lines += [np.hstack(row[begin : begin + COLUMNS]) for row in rows]
    cv2.imwrite(str(path), np.vstack(lines)[:, :, ::-1])


if __name__ == "__main__":
    main()
