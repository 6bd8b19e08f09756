"""Samplers for the likeness loss:  python -m benchmarks.likeness_sampling

In the miniature world, the pretrained ID-Enhancer's answers for held-out people are drawn by each sampler, in few
steps. Beside the face similarity stands how well the loss's gradient, with respect to the text condition, agrees with
that of 20 steps of second order (cosine).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import click
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from idea_core.diffusion.backbone import TextCondition
from idea_core.diffusion.sampling import sample
from idea_core.enhancers.model import face_condition
from idea_core.headless.diffusers import DiffusersBackbone, load_pipeline
from idea_core.training.config import TrainConfig
from idea_core.training.likeness_loss import LikenessLoss
from miniature.trial import Stranger
from miniature.world import BASE, enhancer, face_engine, mean_face, portraits

from .study import UNSEEN

GUIDANCE = TrainConfig().likeness_guidance
MANY = (2, 20)
SAMPLERS = ((1, 6), (2, 6), (2, 5), (2, 4), (1, 4), (2, 3))  # order and steps
IMAGES = 6  # of each person


def drawn_people(backbone: DiffusersBackbone, people: int) -> Iterator[tuple[TextCondition, Tensor, Tensor]]:
    """Text condition, noise and face of each image."""
    model, captions = enhancer().build("cpu"), [backbone.read(prompt) for prompt in portraits(IMAGES)]
    for number in UNSEEN[:people]:
        photos = Stranger(number, 4).photos
        face = mean_face(photos)
        shape = backbone.encode_images(photos[:1].permute(0, 2, 3, 1)).mean.shape
        for place, caption in enumerate(captions):
            with torch.no_grad():
                condition = face_condition(backbone, model, [caption], face[None])
            yield condition, torch.randn(shape, generator=torch.Generator().manual_seed(1000 * number + place)), face


@click.command()
@click.option("--people", type=click.IntRange(1, len(UNSEEN)), default=8)
@click.option("--threads", type=int, default=1)
def main(people: int, threads: int) -> None:
    torch.set_num_threads(threads)
    backbone = DiffusersBackbone(load_pipeline(BASE, "fp32", "cpu"))
    loss = LikenessLoss(backbone, face_engine(), MANY[1], GUIDANCE)
    wanted, images = list[Tensor](), list(drawn_people(backbone, people))
    for order, steps in (MANY, *SAMPLERS):
        losses, cosines, start = [], [], time.process_time()
        for number, (condition, noise, face) in enumerate(images):
            context = condition.context.detach().requires_grad_()
            moved = condition._replace(context=context)
            value = loss.of(sample(backbone, moved, loss.negative, noise, steps, GUIDANCE, order), face)
            (gradient,) = torch.autograd.grad(value, context)
            losses.append(value.item())
            if (order, steps) == MANY:
                wanted.append(gradient.flatten())
            else:
                cosines.append(cosine_similarity(gradient.flatten(), wanted[number], dim=0).item())
        row = {"order": order, "steps": steps, "similarity": 1 - sum(losses) / len(losses)}
        row |= {"one face": sum(one != 1 for one in losses) / len(losses)}
        row |= {"cosine": sum(cosines) / len(cosines) if cosines else 1.0, "seconds": time.process_time() - start}
        print(json.dumps({key: round(number, 3) for key, number in row.items()}), flush=True)


if __name__ == "__main__":
    main()
