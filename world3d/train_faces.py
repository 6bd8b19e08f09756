"""Train the world's own face models on nameless people:  python -m world3d.train_faces --pictures work/crowd

Writes `det.onnx`, `rec.onnx`, and a second recogniser that learns from other people, for measuring only.  They may be
shipped, as nobody's photographs are in them.  The networks and their files are the drawn world's.  It goes on from its
last states.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import (
    avg_pool2d,
    binary_cross_entropy_with_logits,
    cross_entropy,
    interpolate,
    normalize,
    one_hot,
    smooth_l1_loss,
)

from miniature.align import align
from miniature.face_nets import POOL, detector, recogniser, second_recogniser
from miniature.onnx_export import save_detector, save_recogniser
from miniature.render import SIZE as DETECTED  # pixels that the detector looks at
from miniature.train_faces import detection_batch, roughen
from miniature.training import Plan, Run, half_precision

from .crowd import EACH, load_crowd
from .scenes import SIZE
from .shipped import SECOND

MARGIN, SCALE = 0.25, 32.0  # CosFace (arXiv 1801.09414)
JITTER = 0.5  # pixels by which a detector's key points are off
STEPS = {"recogniser": 4000, "detector": 2500, "second": 2500}
SHARE = 0.65  # of the people, from whom the first recogniser learns; the second learns from the others


@click.command()
@click.option("--pictures", "source", type=click.Path(path_type=Path), required=True, help="Folder of the pictures.")
@click.option("--work", type=click.Path(path_type=Path), default=Path("work/faces"), help="Folder for the states.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("work/faces"), help="Folder for the networks.")
@click.option("--only", type=click.Choice(list(STEPS)), multiple=True, default=tuple(STEPS), help="What to train.")
@click.option("--seed", type=int, default=0)
def main(source: Path, work: Path, output: Path, only: tuple[str, ...], seed: int) -> None:
    crowd = load_crowd(source)
    middle = int(len(crowd[0]) // EACH * SHARE) * EACH
    some, others = [part[:middle] for part in crowd], [part[middle:] for part in crowd]
    output.mkdir(parents=True, exist_ok=True)
    if "recogniser" in only:
        plan = Plan(STEPS["recogniser"], seed, average=0.998)
        save_recogniser(train_recogniser(recogniser(), *some, work / "recogniser", plan), output / "rec.onnx")
    if "detector" in only:
        save_detector(train_detector(*crowd, work / "detector", seed), output / "det.onnx")
    if "second" in only:
        plan = Plan(STEPS["second"], seed, average=0.998)
        net = train_recogniser(second_recogniser(), *others, work / "second", plan)
        save_file({key: value.half() for key, value in net.state_dict().items()}, output / SECOND)


def train_recogniser(net: nn.Module, pictures: np.ndarray, points: np.ndarray, work: Path, plan: Plan) -> nn.Module:
    """CosFace on aligned crops of pictures (N, S, S, 3), `EACH` of one person in a row."""
    torch.manual_seed(plan.seed)
    crops, people = _crops(pictures, points, plan.seed), torch.arange(len(pictures)) // EACH
    count = int(people[-1]) + 1
    centers = nn.ParameterList([nn.Parameter(torch.randn(count, net[-1].weight.shape[0]) * 0.05)])
    groups = [{"params": [*net.parameters(), *centers], "lr": 2e-3, "weight_decay": 5e-4}]
    run = Run(work, {"net": net, "centers": centers}, groups, plan)
    for _ in run.steps():
        chosen = torch.randint(len(crops), (128,), generator=run.generator)
        batch = roughen(crops[chosen].float() / 127.5 - 1, run.generator)
        mirrored = torch.rand(len(batch), 1, 1, 1, generator=run.generator) < 0.5
        with torch.autocast("cpu", torch.bfloat16, enabled=half_precision()):
            embeddings = net(torch.where(mirrored, batch.flip(3), batch))
        cosines = normalize(embeddings.float()) @ normalize(centers[0]).T
        margin = MARGIN * min(1.0, run.progress / 0.4)
        run.step(cross_entropy((cosines - margin * one_hot(people[chosen], count)) * SCALE, people[chosen]))
    return run.averages["net"]


def train_detector(pictures: np.ndarray, points: np.ndarray, work: Path, seed: int) -> nn.Module:
    """Score, box and key points of the one face in a picture; some pictures have none."""
    torch.manual_seed(seed)
    net = detector()
    plan = Plan(STEPS["detector"], seed, average=0.998)
    run = Run(work, {"net": net}, [{"params": list(net.parameters()), "lr": 2e-3}], plan)
    for _ in run.steps():
        chosen = torch.randint(len(pictures), (64,), generator=run.generator).sort().values.numpy()
        keypoints = torch.from_numpy(points[chosen]) / SIZE * 2 - 1
        batch, truth = detection_batch(_small(pictures[chosen]), keypoints, run.generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=half_precision()):
            output = net(batch * 2 - 1)
        output, there = output.float(), truth[:, 0]
        score = binary_cross_entropy_with_logits(output[:, 0], there)
        places = smooth_l1_loss(output[:, 1:], truth[:, 1:], reduction="none", beta=0.02).mean(1)
        run.step(score + 10 * (places * there).sum() / there.sum())
    return run.averages["net"]


def _floats(pictures: np.ndarray) -> Tensor:
    """(B, 3, S, S) in 0…1 of pictures (B, S, S, 3) of bytes."""
    return torch.from_numpy(pictures).movedim(-1, 1).float() / 255


def _small(pictures: np.ndarray) -> Tensor:
    """(B, 3, D, D) in 0…1, as the detector looks at them."""
    return interpolate(_floats(pictures), DETECTED, mode="bilinear", antialias=True)


def _crops(pictures: np.ndarray, points: np.ndarray, seed: int) -> Tensor:
    """Aligned crops (N, 3, 56, 56) of bytes."""
    generator, crops = torch.Generator().manual_seed(seed), []
    for begin in range(0, len(pictures), 256):
        part = slice(begin, begin + 256)
        keypoints = torch.from_numpy(points[part])
        keypoints = keypoints + torch.randn(keypoints.shape, generator=generator) * JITTER
        crops.append((avg_pool2d(align(_floats(pictures[part]), keypoints), POOL) * 255).round().byte())
    return torch.cat(crops)


if __name__ == "__main__":
    main()
