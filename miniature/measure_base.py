"""How well the world's base model draws its named people and obeys:  python -m miniature.measure_base

Bounds stand beside it: two true pictures of one person, and of two people.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from idea_core.diffusers_backbone import load_pipeline
from idea_core.faces import InsightFaceEngine
from idea_core.faces.packs import FacePack

from .face_nets import Judge
from .people import named_people
from .render import render
from .scenes import BACKGROUNDS, EXPRESSIONS, HATS, Scenes, draw_scenes

DATA = Path(__file__).parent / "data"
SEED = 11


@click.command()
@click.option("--base", type=click.Path(path_type=Path), default=DATA / "base")
@click.option("--faces", type=click.Path(path_type=Path), default=DATA / "faces")
@click.option("--people", "count", type=int, default=48)
@click.option("--guidance", type=float, multiple=True, default=(3.0,))
@click.option("--steps", type=int, default=20)
@click.option("--sheet", type=click.Path(path_type=Path), help="File for a contact sheet.")
def main(base: Path, faces: Path, count: int, guidance: tuple[float, ...], steps: int, sheet: Path | None) -> None:
    pipeline = load_pipeline(base)
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    engine, judge = InsightFaceEngine(FacePack("miniature", faces), "cpu"), load_judge(faces)
    known, generator = named_people(), torch.Generator().manual_seed(SEED)
    chosen = torch.randperm(len(known.faces), generator=generator)[:count]
    scenes = draw_photos(count, generator)
    true = [render(known.faces[chosen], draw_photos(count, generator), generator) for _ in range(2)]
    truth, again = (embed(engine, pictures) for pictures in true)
    print(json.dumps({"same person": cosine(truth, again), "another person": cosine(truth, again.roll(1, 0))}))
    names = known.names()
    prompts = [scenes.caption(number, names[person]) for number, person in enumerate(chosen.tolist())]
    for scale in guidance:
        pictures = sample(pipeline, prompts, scale, steps)
        drawn = embed(engine, pictures)
        result = {"guidance": scale, "identity": cosine(truth, drawn), "detected": found(drawn)}
        print(json.dumps(result | obeyed(judge, pictures, scenes)))
    if sheet:
        write_sheet([true[0], pictures], sheet)


def load_judge(folder: Path) -> Judge:
    judge = Judge().eval()
    judge.load_state_dict({key: tensor.float() for key, tensor in load_file(folder / "judge.safetensors").items()})
    return judge


def draw_photos(count: int, generator: torch.Generator) -> Scenes:
    """Scenes without sketches, which have no colours to judge."""
    scenes = draw_scenes(count, generator)
    scenes.style.zero_()
    return scenes


def sample(pipeline: StableDiffusionPipeline, prompts: list[str], guidance: float, steps: int) -> Tensor:
    """Pictures (B, 3, H, W) in 0…1."""
    batches = []
    for begin in range(0, len(prompts), 24):
        part = prompts[begin : begin + 24]
        generators = [torch.Generator().manual_seed(SEED + begin + number) for number in range(len(part))]
        output = pipeline(
            part, guidance_scale=guidance, num_inference_steps=steps, generator=generators, output_type="pt"
        )
        batches.append(output.images)
    return torch.cat(batches)


def embed(engine: InsightFaceEngine, pictures: Tensor) -> Tensor:
    """Normalised embeddings (B, 512); zeros without a face."""
    rows = []
    for picture in pictures:
        photo = (picture.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        face = max(engine.detect(photo), key=lambda face: face.area, default=None)
        rows.append(torch.zeros(512) if face is None else torch.from_numpy(engine.embed(photo, face)))
    return torch.nn.functional.normalize(torch.stack(rows), dim=1)


def cosine(first: Tensor, second: Tensor) -> float:
    return round(float((first * second).sum(1).mean()), 4)


def found(embeddings: Tensor) -> float:
    return float((embeddings.norm(dim=1) > 0).float().mean())


@torch.no_grad()
def obeyed(judge: Judge, pictures: Tensor, scenes: Scenes) -> dict[str, float]:
    """Share of pictures with the wanted background, hat and expression."""
    said = judge(pictures)
    keys = {"background": BACKGROUNDS, "hat": HATS, "expression": EXPRESSIONS}
    return {key: round(float((said[key].argmax(1) == getattr(scenes, key)).float().mean()), 4) for key in keys}


def write_sheet(rows: list[Tensor], path: Path, columns: int = 12, scale: int = 2) -> None:
    """Rows of pictures under each other, `columns` at a time."""
    lines = []
    for begin in range(0, len(rows[0]), columns):
        lines += [torch.cat(list(row[begin : begin + columns]), dim=2) for row in rows]
    width = max(line.shape[2] for line in lines)
    lines = [torch.nn.functional.pad(line, (0, width - line.shape[2]), value=1.0) for line in lines]
    sheet = (torch.cat(lines, dim=1).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    image = Image.fromarray(sheet)
    image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST).save(path)


if __name__ == "__main__":
    main()
