"""Train the world's base model on its named people:  python -m world3d.train_base --pictures work/world --vae …

A CLIP text encoder and a UNet, from scratch or from a saved base model, on the latents of the world's VAE; saved as a
StableDiffusionPipeline. It goes on from its own last state.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor

from miniature import processes
from miniature.losses import NoiseLoss
from miniature.models import build_pipeline
from miniature.training import STATE, Plan, Run

from .captions import CAPTIONS
from .latents import emphasis, load_data, tokens
from .models import build_text_encoder, build_unet
from .teach_text import teach_text
from .words import build_tokenizer

SEED = 0
BATCH = 48
RATE, TEXT_SHARE = 8e-4, 0.25
LESSON = 900  # steps of the text encoder's first lesson


@click.command()
@click.option("--pictures", "source", type=click.Path(path_type=Path), required=True, help="Folder of the pictures.")
@click.option("--vae", type=click.Path(path_type=Path), required=True, help="The world's VAE, in diffusers' format.")
@click.option("--steps", type=int, default=12_000, help="Steps to train for, over all runs.")
@click.option("--rate", type=float, default=RATE, help="Learning rate; the text encoder has a quarter of it.")
@click.option("--base", type=click.Path(exists=True, path_type=Path), help="Base model to go on from.")
@click.option("--work", type=click.Path(path_type=Path), default=Path("work/base"), help="Folder for the state.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("work/base/base"), help="Folder for the model.")
@click.option("--export", is_flag=True, help="Only save the averaged weights of the last state to the output.")
def main(source, vae, steps, rate, base, work, output, export) -> None:
    processes.join()
    torch.manual_seed(SEED)
    autoencoder = AutoencoderKL.from_pretrained(vae, local_files_only=True)
    autoencoder.register_to_config(_name_or_path="")  # no path of this machine in what is saved
    tokenizer = build_tokenizer(work / "tokenizer")
    if base:
        saved = StableDiffusionPipeline.from_pretrained(base, torch_dtype=torch.float32, local_files_only=True)
        text_encoder, unet = saved.text_encoder, saved.unet
        unet.register_to_config(_name_or_path="")
    else:
        text_encoder, unet = build_text_encoder(tokenizer), build_unet()
    if not export:
        data = load_data(source, autoencoder, partial(tokens, tokenizer))
        print(f"{len(data.latents)} pictures, of standard deviation {data.latents.float().std():.3f}", flush=True)
        if not base and not (work / STATE).exists():
            error, right = teach_text(text_encoder, data, LESSON, torch.Generator().manual_seed(SEED))
            print(f"the lesson ends with an error of {error:.4f}, and {right:.3f} of the scenes right", flush=True)
    groups = [
        {"params": list(unet.parameters()), "lr": rate},
        {"params": list(text_encoder.parameters()), "lr": TEXT_SHARE * rate, "weight_decay": 0.0},
    ]
    run = Run(work, {"text_encoder": text_encoder, "unet": unet}, groups, Plan(steps, SEED))
    if not export:
        run.save()
        unet.set_attn_processor(AttnProcessor())  # on a CPU, torch's fused attention is ten times slower backwards
        text_encoder.set_attn_implementation("eager")
        loss, places = NoiseLoss(text_encoder, unet), emphasis()
        for _ in run.steps():
            chosen = torch.randint(len(data.latents), (BATCH,), generator=run.generator)
            caption = torch.randint(CAPTIONS, (BATCH,), generator=run.generator)
            run.step(loss(data.latents[chosen].float(), data.ids[chosen, caption], places, run.generator))
    if processes.number():
        return
    averages = run.averages
    pipeline = build_pipeline(tokenizer, averages["text_encoder"], averages["unet"], autoencoder)
    pipeline.to(dtype=torch.float16).save_pretrained(output)


if __name__ == "__main__":
    main()
