"""Train the world's base model on its named people:  python -m miniature.train_base --vae work/miniature/vae/vae

A CLIP text encoder and a UNet from scratch, on the latents of the world's VAE; saved as a StableDiffusionPipeline. It
resumes from its last checkpoint.
"""

from __future__ import annotations

import random
from pathlib import Path

import click
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from idea_core.text.captions import OBJECT_TEMPLATES

from .losses import NoiseLoss
from .models import LATENT_CHANNELS, LATENT_SIZE, build_pipeline, build_text_encoder, build_tokenizer, build_unet
from .people import NAMED_PEOPLE, named_people
from .render import SIZE, render_with_keypoints
from .scenes import Scenes, draw_scenes
from .teach_text import teach_text
from .training import PACE, STATE, WORK, Plan, Run
from .words import LENGTH

PICTURES = 64  # of each named person
CAPTIONS = 4  # of each image
NULL, NAMELESS, TEMPLATE, NO_BACKGROUND, NO_SCENE = 0.1, 0.06, 0.3, 0.15, 0.3  # shares of captions
BATCH = 48
LR, TEXT_LR = 1e-3, 2e-4
TEXT_STEPS = 600  # of the text encoder's pretraining
MOUTH, MOUTH_FROM = 6.0, 2800  # additional loss weight of the mouth, which is small, and its first step
MARGIN = 3.0  # pixels around a mouth


@click.command()
@click.option("--steps", type=int, default=7000, help="Steps to train for.")
@click.option("--vae", type=click.Path(path_type=Path), required=True, help="The world's VAE, in diffusers' format.")
@click.option("--work", type=click.Path(path_type=Path), default=WORK / "base", help="Folder for checkpoints.")
@click.option("--output", type=click.Path(path_type=Path), default=WORK / "models/base")
@click.option("--seed", type=int, default=0)
def main(steps: int, vae: Path, work: Path, output: Path, seed: int) -> None:
    torch.manual_seed(seed)
    autoencoder = AutoencoderKL.from_pretrained(vae, local_files_only=True)
    autoencoder.register_to_config(_name_or_path="")  # no path of this machine in what is saved
    tokenizer = build_tokenizer(work / "tokenizer")
    text_encoder, unet = build_text_encoder(tokenizer), build_unet()
    latents, ids, mouths = _data(autoencoder, tokenizer, work / "data.pt", seed)
    if not (work / STATE).exists():
        error = teach_text(text_encoder, tokenizer, TEXT_STEPS, torch.Generator().manual_seed(seed))
        print(f"text encoder: squared error of the predicted faces {error:.4f}", flush=True)
    groups = [
        {"params": list(unet.parameters()), "lr": LR},
        {"params": list(text_encoder.parameters()), "lr": TEXT_LR, "weight_decay": 0.0},
    ]
    run = Run(work, {"text_encoder": text_encoder, "unet": unet}, groups, Plan(steps, seed, **PACE))
    loss = NoiseLoss(text_encoder, unet)
    for _ in run.steps():
        chosen = torch.randint(len(latents), (BATCH,), generator=run.generator)
        caption = torch.randint(CAPTIONS, (BATCH,), generator=run.generator)
        emphasis = 1 + MOUTH * mouths[chosen] * (run.count >= MOUTH_FROM)
        run.step(loss(latents[chosen].float(), ids[chosen, caption], emphasis, run.generator))
    averages = run.averages
    pipeline = build_pipeline(tokenizer, averages["text_encoder"], averages["unet"], autoencoder)
    pipeline.to(dtype=torch.float16).save_pretrained(output)


@torch.no_grad()
def _data(vae: AutoencoderKL, tokenizer, cache: Path, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Scaled latents (N, 4, h, w) of all images in half precision, ids (N, CAPTIONS, L) of their captions, and masks
    (N, h, w) of their mouths."""
    if cache.exists():
        stored = torch.load(cache, weights_only=True)
        return stored["latents"], stored["ids"], stored["mouths"]
    generator, choices = torch.Generator().manual_seed(seed), random.Random(seed)
    known = named_people()
    names, people = known.names(), torch.arange(NAMED_PEOPLE).repeat_interleave(PICTURES)
    latents = torch.empty(len(people), LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE, dtype=torch.float16)
    captions: list[str] = []
    mouths = torch.zeros(len(people), LATENT_SIZE, LATENT_SIZE, dtype=torch.bool)
    for begin in range(0, len(people), 256):
        part = people[begin : begin + 256]
        scenes = draw_scenes(len(part), generator)
        pictures, keypoints = render_with_keypoints(known.faces[part], scenes, generator)
        mouths[begin : begin + 256] = _mouths(keypoints)
        with torch.autocast("cpu", torch.bfloat16):
            latents[begin : begin + 256] = vae.encode(pictures * 2 - 1).latent_dist.mode() * vae.config.scaling_factor
        for number, person in enumerate(part.tolist()):
            captions += [caption(scenes, number, names[person], choices) for _ in range(CAPTIONS)]
    ids = tokenizer(captions, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt").input_ids
    ids = ids.view(len(people), CAPTIONS, LENGTH)
    cache.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"latents": latents, "ids": ids, "mouths": mouths}, cache)
    return latents, ids, mouths


def _mouths(keypoints: Tensor) -> Tensor:
    """Which cells (B, h, w) of the latents show the mouth, given five key points in pixels."""
    corners = keypoints[:, 3:]
    center, reach = corners.mean(1), corners.diff(dim=1).norm(dim=2) / 2 + MARGIN  # (B, 2), (B, 1)
    cells = (torch.arange(LATENT_SIZE) + 0.5) * (SIZE / LATENT_SIZE)
    across = (cells - center[:, :1]).abs() <= reach  # (B, w)
    down = (cells - center[:, 1:]).abs() <= 2 * MARGIN  # (B, h)
    return down[:, :, None] & across[:, None]


def caption(scenes: Scenes, number: int, name: str, choices: random.Random) -> str:
    """A random caption of an image; some mention less than it shows."""
    if choices.random() < NULL:
        return ""
    if choices.random() < NAMELESS:
        name = choices.choice(("a person", "a face"))
    if choices.random() < TEMPLATE and int(scenes.style[number]) == 0:
        start = choices.choice(OBJECT_TEMPLATES).format(f"face of {name} person")
        if choices.random() < NO_SCENE:
            return start
        scene = scenes.caption(number, name, background=choices.random() > NO_BACKGROUND)
        return start + scene.removeprefix(f"a photo of {name}")
    return scenes.caption(number, name, background=choices.random() > NO_BACKGROUND)


if __name__ == "__main__":
    main()
