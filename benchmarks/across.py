"""What an Enhancer that has seen people costs: its pictures, its training, and a person from a face.

    python -m benchmarks.across counted               floating-point operations at full size, counted without computing
    python -m benchmarks.across measured              seconds, with random weights

`measured` is of full size on a GPU and of two thin layers on a CPU, beside a text width of full size. It adds its
lines, with date and device, to `benchmarks/results/across.jsonl`.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import click
import torch
from torch.nn.functional import normalize
from torch.utils.flop_counter import FlopCounterMode

from idea_core.diffusion.sampling import sample
from idea_core.enhancers.config import DatasetConfig, EnhancerTrainConfig
from idea_core.enhancers.dataset import PeoplePictures
from idea_core.enhancers.pretrained import PretrainedEnhancer
from idea_core.enhancers.trainer import EnhancerTrainer
from idea_core.headless.diffusers import DiffusersBackbone
from idea_core.headless.diffusers.text import text_encoders_of
from idea_core.method.anchor import celebrity_names, cross_initialise
from idea_core.text.captions import PORTRAIT_PROMPTS

from .random_models import POOLED, WIDTH, random_pipeline
from .tables import now, write

RESULTS = Path(__file__).parent / "results" / "across.jsonl"
PEOPLE, PER_PERSON = len(celebrity_names()), DatasetConfig.images_per_person
NAMES = ("brad pitt", "emma stone", "tom hanks")
DRAWING, TRAINING = DatasetConfig(names=NAMES), EnhancerTrainConfig()
BY_TEXT, BY_PICTURES = TRAINING.text_steps, TRAINING.steps - TRAINING.text_steps
LATENT = {"sd1": 64, "sd2": 64, "sdxl": 128}  # side, of pictures of full size
FAMILIES = tuple(LATENT)

logging.getLogger("diffusers").setLevel(logging.ERROR)  # of casting these models, which are nobody's


@click.group()
def across() -> None:
    """Time and operations of an Enhancer across people."""


@across.command()
@click.option("--tflops", type=float, default=300.0, help="That a device reaches, in units of 10¹² a second.")
def counted(tflops: float) -> None:
    """Operations of the pictures of all people and of the training, and the hours that they take at least."""
    columns = ("model", "TFLOP per picture", "sample by text", "by pictures", "by likeness", "PFLOP in all", "hours")
    print("|" + "|".join(f" {column} " for column in columns) + "|\n" + "|---" * len(columns) + "|")
    for family in FAMILIES:
        look, learn, decode, read = _operations(family)
        picture = 2 * DRAWING.sampling_steps * look + decode  # with and without the prompt
        by_text, by_pictures = 3 * read, learn + look + 3 * read  # each with what the name gives
        by_likeness = 2 * TRAINING.likeness_sampling_steps * learn + 2 * decode + 2 * read + by_pictures
        read_in_all = BY_TEXT * TRAINING.text_batch_size * by_text
        seen_in_all = BY_PICTURES * TRAINING.batch_size * by_pictures
        total = PEOPLE * PER_PERSON * picture + read_in_all + seen_in_all
        hours = total / tflops / 3600
        samples = f"{by_text:.2f} | {by_pictures:.2f} | {by_likeness:.0f}"
        print(f"| {family} | {picture:.0f} | {samples} | {total / 1e3:.0f} | {hours:.2f} |")


@across.command()
@click.option("--pictures", type=int, default=8)
@click.option("--steps", type=int, default=10)
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu")
def measured(pictures: int, steps: int, device: str) -> None:
    """Seconds of a picture, of a step, and of a person from a face."""
    full, rows = device != "cpu", []
    for family in FAMILIES:
        pipeline = random_pipeline(family, full, device, torch.bfloat16 if full else torch.float32)
        backbone = DiffusersBackbone(pipeline)
        side = LATENT[family] if full else 8
        anchor, by_pictures = cross_initialise(backbone, NAMES, 2), replace(TRAINING, text_steps=0)
        trainer = EnhancerTrainer(backbone, anchor, _people(side), TRAINING)
        row = {"model": family, "picture_seconds": _drawing(backbone, side, pictures, device)}
        row["text_step_seconds"] = _training(trainer, steps, device)
        other = EnhancerTrainer(backbone, anchor, _people(side), by_pictures)
        row["picture_step_seconds"] = _training(other, steps, device)
        person = PretrainedEnhancer.of(trainer.model, backbone)
        face = normalize(torch.randn(512), dim=0)
        start = now(device)
        person.identity("alice", face)
        row["person_seconds"] = now(device) - start
        learning = BY_TEXT * row["text_step_seconds"] + BY_PICTURES * row["picture_step_seconds"]
        hours = PEOPLE * PER_PERSON * row["picture_seconds"] + learning
        rows.append({**row, "hours_in_all": hours / 3600} if full else row)
    write(RESULTS, "across", device, rows, pictures=pictures, steps=steps, full_size=full)


def _operations(family: str) -> tuple[float, float, float, float]:
    """In 10¹²: of a UNet's forward pass, of one with the backward pass to its text, of a picture's decoding, and of the
    text encoders' forward pass, to which their backward pass is equal: they are frozen."""
    pipeline = random_pipeline(family, True, "meta", torch.bfloat16)
    pipeline.unet.requires_grad_(False)
    half = {"device": "meta", "dtype": torch.bfloat16}
    latents = torch.zeros(1, 4, LATENT[family], LATENT[family], **half)
    context = torch.zeros(1, 77, WIDTH[family], requires_grad=True, **half)
    pooled = POOLED["projection_class_embeddings_input_dim"] - 6 * POOLED["addition_time_embed_dim"]
    added = {"text_embeds": torch.zeros(1, pooled, **half), "time_ids": torch.zeros(1, 6, device="meta")}
    inputs = latents, torch.zeros(1, device="meta"), context
    with FlopCounterMode(display=False) as look, torch.no_grad():
        pipeline.unet(*inputs, added_cond_kwargs=added)
    with FlopCounterMode(display=False) as learn:
        pipeline.unet(*inputs, added_cond_kwargs=added).sample.sum().backward()
    with FlopCounterMode(display=False) as decode, torch.no_grad():
        pipeline.vae.decode(latents)
    with FlopCounterMode(display=False) as read, torch.no_grad():
        for encoder in text_encoders_of(pipeline):
            encoder(torch.zeros(1, 77, dtype=torch.long, device="meta"))
    return tuple(counter.get_total_flops() / 1e12 for counter in (look, learn, decode, read))


def _people(side: int) -> PeoplePictures:
    """Two pictures of each of sixteen people."""
    generator = torch.Generator().manual_seed(0)
    latents, faces = torch.randn(32, 4, side, side, generator=generator), torch.randn(32, 512, generator=generator)
    prompts = [PORTRAIT_PROMPTS[number % len(PORTRAIT_PROMPTS)] for number in range(32)]
    return PeoplePictures(latents, normalize(faces, dim=1), torch.arange(32) // 2, prompts, celebrity_names()[:16])


def _drawing(backbone: DiffusersBackbone, side: int, count: int, device: str) -> float:
    """Seconds of a picture, the second time."""
    texts = ["a photo of brad pitt"] * count + [""]
    prompts = [backbone.read(text) for text in texts]
    for _ in range(2):
        start = now(device)
        with torch.no_grad():
            encoded = backbone.encode(prompts)
            positive, negative = encoded.rows(slice(count)), encoded.rows(slice(count, None))
            noise = torch.randn(count, 4, side, side)
            drawn = sample(backbone, positive, negative, noise, DRAWING.sampling_steps, DRAWING.guidance, DRAWING.order)
            backbone.decode_images(drawn)
    return (now(device) - start) / count


def _training(trainer: EnhancerTrainer, steps: int, device: str) -> float:
    trainer.run_step()
    start = now(device)
    for _ in range(steps):
        trainer.run_step()
    return (now(device) - start) / steps


if __name__ == "__main__":
    across()
