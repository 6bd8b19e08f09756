"""Train the judge of obedience:  python -m world3d.train_judge --pictures work/world --crowd work/crowd

It learns from the world's pictures and from the crowd's: from 400 people alone it confuses sad faces with neutral ones
of people it has not seen. It is tested on people who are in none of them.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, cross_entropy, interpolate

from miniature.images import to_signed
from miniature.training import Plan, Run, half_precision

from .album import load_pictures, scene_of
from .crowd import EACH, load_crowd, scenes_of
from .obedience import Judge, obeyed, save_judge
from .people import held_out_people
from .picture import picture, prepare
from .scenes import ASKED, SIZE, Scene, draw_scene

BATCH, RATE = 64, 2e-3
BLURRED, NOISE, SHIFT = 0.4, 0.06, 3  # share that is blurred; largest noise; pixels
TEST_PICTURES, TEST_SEED = 6, 1234  # of each held-out person


@click.command()
@click.option("--pictures", "source", type=click.Path(path_type=Path), required=True, help="Folder of the pictures.")
@click.option("--crowd", type=click.Path(path_type=Path), required=True, help="Folder of the crowd's pictures.")
@click.option("--steps", type=int, default=4000, help="Steps to train for.")
@click.option("--work", type=click.Path(path_type=Path), default=Path("work/judge"), help="Folder for the state.")
@click.option("--seed", type=int, default=0)
def main(source: Path, crowd: Path, steps: int, work: Path, seed: int) -> None:
    torch.manual_seed(seed)
    net, known, others = Judge(), load_pictures(source), load_crowd(crowd)[0]
    scenes = [scene_of(number) for number in range(len(known))]
    scenes += [scene for number in range(len(others) // EACH) for scene in scenes_of(number)]
    wanted = torch.tensor(list(map(indices, scenes)))
    run = Run(work, {"judge": net}, [{"params": list(net.parameters()), "lr": RATE}], Plan(steps, seed))
    for _ in run.steps():
        part = torch.randint(len(known), (BATCH // 2,), generator=run.generator).sort().values
        rest = torch.randint(len(others), (BATCH // 2,), generator=run.generator).sort().values
        batch = _disturb(to_signed(np.concatenate([known[part.numpy()], others[rest.numpy()]])), run.generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=half_precision()):
            said = net(batch)
        chosen = wanted[torch.cat([part, len(known) + rest])]
        run.step(sum(cross_entropy(said[key].float(), chosen[:, k]) for k, key in enumerate(ASKED)))
    trained = run.averages["judge"]
    save_judge(trained)
    truth, scenes = held_out_pictures()
    print(json.dumps(obeyed(trained, to_signed(truth), torch.tensor([indices(scene) for scene in scenes]))))


def indices(scene: Scene) -> list[int]:
    """(5,) what is asked for in a scene, as indices into the lists of `ASKED`."""
    return [getattr(scene, key) for key in ASKED]


def held_out_pictures(each: int = TEST_PICTURES) -> tuple[np.ndarray, list[Scene]]:
    """Pictures (N, S, S, 3) of the held-out people, `each` of one after the other, and their scenes."""
    rng, pictures, scenes = np.random.default_rng(TEST_SEED), [], []
    for person in held_out_people():
        portrait = prepare(person)
        for _ in range(each):
            scenes.append(draw_scene(rng))
            pictures.append(picture(portrait, scenes[-1]))
    return np.stack(pictures), scenes


def _disturb(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures (B, 3, S, S) shifted, some of them blurred, with noise: as a model may draw them."""
    right, down = torch.randint(-SHIFT, SHIFT + 1, (2,), generator=generator).tolist()
    shifted = pictures.roll((down, right), (2, 3))
    small = interpolate(avg_pool2d(shifted, 2), SIZE, mode="bilinear")
    blurred = torch.rand(len(pictures), 1, 1, 1, generator=generator) < BLURRED
    share = torch.rand(len(pictures), 1, 1, 1, generator=generator)
    mixed = torch.where(blurred, shifted.lerp(small, share), shifted)
    noise = torch.randn(pictures.shape, generator=generator)
    return mixed + noise * NOISE * torch.rand(len(pictures), 1, 1, 1, generator=generator)


if __name__ == "__main__":
    main()
