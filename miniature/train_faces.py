"""Train the world's face models on drawn people:  python -m miniature.train_faces

Writes `det.onnx` and `rec.onnx`, a second recogniser trained on other people for measuring only, and the classifier of
backgrounds, hats, expressions and styles. It resumes from its last checkpoints.
"""

from __future__ import annotations

from pathlib import Path

import click
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import (
    affine_grid,
    avg_pool2d,
    binary_cross_entropy_with_logits,
    cross_entropy,
    grid_sample,
    normalize,
    one_hot,
    smooth_l1_loss,
)

from .align import align
from .face_nets import POOL, Judge, detector, recogniser, second_recogniser
from .onnx_export import save_detector, save_recogniser
from .people import PARAMETERS, other_people
from .render import SIZE, render_with_keypoints
from .scenes import draw_scenes
from .training import PACE, WORK, Plan, Run

PEOPLE, PICTURES = 2400, 12  # of the recogniser's training
MARGIN, SCALE = 0.2, 32.0  # CosFace (arXiv 1801.09414)
STEPS = {"recogniser": 2800, "detector": 2700, "judge": 2000, "second": 1000}
SECOND_PEOPLE_SEED = 41


@click.command()
@click.option("--work", type=click.Path(path_type=Path), default=WORK / "faces", help="Folder for checkpoints.")
@click.option("--output", type=click.Path(path_type=Path), default=WORK / "models/faces")
@click.option("--only", type=click.Choice(list(STEPS)), multiple=True, default=tuple(STEPS), help="What to train.")
@click.option("--seed", type=int, default=0)
def main(work: Path, output: Path, only: tuple[str, ...], seed: int) -> None:
    runs = {part: (STEPS[part], work / part, seed) for part in only}
    if "recogniser" in only:
        net = train_recogniser(recogniser(), other_people(PEOPLE), *runs["recogniser"])
        save_recogniser(net, output / "rec.onnx")
    if "detector" in only:
        save_detector(train_detector(*runs["detector"]), output / "det.onnx")
    if "judge" in only:
        _save(train_judge(*runs["judge"]), output / "judge.safetensors")
    if "second" in only:
        others = other_people(PEOPLE, SECOND_PEOPLE_SEED)
        _save(train_recogniser(second_recogniser(), others, *runs["second"]), output / "second.safetensors")


def _save(net: nn.Module, path: Path) -> None:
    save_file({key: tensor.half() for key, tensor in net.state_dict().items()}, path)


def train_recogniser(net: nn.Module, faces: Tensor, steps: int, work: Path, seed: int) -> nn.Module:
    """CosFace on aligned crops of the people with these faces."""
    torch.manual_seed(seed)
    crops, people = _crops(faces, seed)
    centers = nn.ParameterList([nn.Parameter(torch.randn(len(faces), net[-1].weight.shape[0]) * 0.05)])
    groups = [{"params": [*net.parameters(), *centers], "lr": 2e-3, "weight_decay": 5e-4}]
    run = Run(work, {"net": net, "centers": centers}, groups, Plan(steps, seed, **PACE))
    for _ in run.steps():
        chosen = torch.randint(len(crops), (128,), generator=run.generator)
        pictures = roughen(crops[chosen].float() / 127.5 - 1, run.generator)
        with torch.autocast("cpu", torch.bfloat16):
            embeddings = net(pictures)
        cosines = normalize(embeddings.float()) @ normalize(centers[0]).T
        margin = MARGIN * min(1.0, run.progress / 0.4)
        run.step(cross_entropy((cosines - margin * one_hot(people[chosen], len(faces))) * SCALE, people[chosen]))
    return run.averages["net"]


def train_detector(steps: int, work: Path, seed: int) -> nn.Module:
    """Train score, box and key points of the one face in an image; some images have none."""
    torch.manual_seed(seed)
    net = detector()
    run = Run(work, {"net": net}, [{"params": list(net.parameters()), "lr": 2e-3}], Plan(steps, seed, **PACE))
    for _ in run.steps():
        pictures, keypoints, _ = _pictures(64, run.generator)
        pictures, truth = detection_batch(pictures, keypoints / SIZE * 2 - 1, run.generator)
        with torch.autocast("cpu", torch.bfloat16):
            output = net(pictures * 2 - 1)
        output, there = output.float(), truth[:, 0]
        score = binary_cross_entropy_with_logits(output[:, 0], there)
        places = smooth_l1_loss(output[:, 1:], truth[:, 1:], reduction="none", beta=0.02).mean(1)
        run.step(score + 10 * (places * there).sum() / there.sum())
    return run.averages["net"]


def train_judge(steps: int, work: Path, seed: int) -> Judge:
    torch.manual_seed(seed)
    judge = Judge()
    run = Run(work, {"judge": judge}, [{"params": list(judge.parameters()), "lr": 2e-3}], Plan(steps, seed, **PACE))
    for _ in run.steps():
        pictures, _, scenes = _pictures(64, run.generator)
        with torch.autocast("cpu", torch.bfloat16):
            answers = judge(roughen(pictures, run.generator))
        run.step(sum(cross_entropy(logits.float(), getattr(scenes, key)) for key, logits in answers.items()))
    return run.averages["judge"]


def roughen(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Blur and noise, as in generated images."""
    blurred = avg_pool2d(nn.functional.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, 1)
    amount = torch.rand(len(pictures), 1, 1, 1, generator=generator) * 0.7
    amount = amount * (torch.rand(len(pictures), 1, 1, 1, generator=generator) < 0.5)
    noise = torch.randn(pictures.shape, generator=generator) * 0.04
    return pictures + amount * (blurred - pictures) + noise * torch.rand(len(pictures), 1, 1, 1, generator=generator)


def _pictures(count: int, generator: torch.Generator, faces: Tensor | None = None):
    """Images, key points and scenes of `faces`, or of new people."""
    if faces is None:
        faces = torch.randn(count, len(PARAMETERS), generator=generator)
    scenes = draw_scenes(count, generator)
    return *render_with_keypoints(faces, scenes, generator), scenes


def _crops(faces: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Aligned crops (N, 3, 56, 56) uint8, and the person of each (N,)."""
    generator = torch.Generator().manual_seed(seed)
    people = torch.arange(len(faces)).repeat(PICTURES)
    crops = []
    for part in people.split(256):
        pictures, keypoints, _ = _pictures(len(part), generator, faces[part])
        keypoints = keypoints + torch.randn(keypoints.shape, generator=generator) * 0.4  # a detector is not exact
        crops.append((avg_pool2d(align(pictures, keypoints), POOL) * 255).round().byte())
    return torch.cat(crops), people


def detection_batch(pictures: Tensor, points: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images with one face somewhere, or none; (B, 15) targets in −1…1: has a face, box, key points.

    Args:
        pictures: (B, 3, S, S) in 0…1, each with a face.
        points: (B, 5, 2) its key points in −1…1.
    """
    count = len(pictures)
    zoom = 0.5 + torch.rand(count, generator=generator) * 0.65
    room = (1.05 - zoom).clamp(min=0.05)
    shift = (torch.rand(count, 2, generator=generator) * 2 - 1) * room[:, None]
    matrix = torch.zeros(count, 2, 3)
    matrix[:, 0, 0] = matrix[:, 1, 1] = 1 / zoom
    matrix[:, :, 2] = -shift / zoom[:, None]
    moved = grid_sample(
        pictures, affine_grid(matrix, pictures.shape, align_corners=False), padding_mode="border", align_corners=False
    )
    points = points * zoom.view(-1, 1, 1) + shift[:, None]
    center, spread = points.mean(1), (points[:, 1] - points[:, 0]).norm(dim=1, keepdim=True)
    box = torch.cat([center - spread * 1.4, center + spread * 1.4], dim=1)
    there = (torch.rand(count, generator=generator) < 0.75).float()
    kind = torch.rand(count, generator=generator).view(-1, 1, 1, 1)
    nothing = torch.where(kind < 0.5, _shuffled(pictures, generator), moved.mean((2, 3), keepdim=True).expand_as(moved))
    pictures = torch.where(there.view(-1, 1, 1, 1) > 0, moved, nothing)
    return roughen(pictures, generator), torch.cat([there[:, None], box, points.flatten(1)], dim=1)


def _shuffled(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Each image's sixteen squares in another order: all colours of a face, and no face."""
    side = SIZE // 4
    squares = pictures.unfold(2, side, side).unfold(3, side, side).flatten(2, 3)  # (B, 3, 16, side, side)
    order = torch.randperm(16, generator=generator)
    rows = squares[:, :, order].unflatten(2, (4, 4))
    return rows.permute(0, 1, 2, 4, 3, 5).reshape(pictures.shape)


if __name__ == "__main__":
    main()
