"""Train the flow-matching base model on the world's people:  python -m world3d.flow.train --pictures work/world --vae …

On the same latents and captions as `world3d.train_base`; saved as a ZImagePipeline. It goes on from its own last state.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click
import torch
from diffusers import AutoencoderKL

from miniature import processes
from miniature.training import STATE, Plan, Run

from ..latents import load_data
from ..teach_text import teach_text
from .loss import Batches, Loss
from .models import build_pipeline, build_text_encoder, build_transformer
from .teach_text import reader
from .tokenizer import build_tokenizer, tokens

RATE, TEXT_RATE = 1e-3, 1e-4
LESSON = 1200  # steps of the language model's first lesson


@click.command()
@click.option("--pictures", "source", type=click.Path(path_type=Path), required=True, help="Folder of the pictures.")
@click.option("--vae", type=click.Path(path_type=Path), required=True, help="The world's VAE, in diffusers' format.")
@click.option("--steps", type=int, default=9600, help="Steps to train for, over all runs.")
@click.option("--batch", type=int, default=48, help="Pictures of a step.")
@click.option("--work", type=click.Path(path_type=Path), default=Path("work/flow"), help="Folder for the state.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("work/flow/base"), help="Folder for the model.")
@click.option("--export", is_flag=True, help="Only save the averaged weights of the last state to the output.")
@click.option("--seed", type=int, default=0)
def main(source, vae, steps, batch, work, output, export, seed) -> None:
    processes.join()
    torch.manual_seed(seed)
    autoencoder = AutoencoderKL.from_pretrained(vae, local_files_only=True)
    autoencoder.register_to_config(_name_or_path="")  # no path of this machine in what is saved
    tokenizer = build_tokenizer()
    text_encoder, transformer = build_text_encoder(tokenizer), build_transformer()
    text_encoder.set_attn_implementation("eager")
    if not export:
        data = load_data(source, autoencoder, partial(tokens, tokenizer))
        print(f"{len(data.latents)} pictures, of standard deviation {data.latents.float().std():.3f}", flush=True)
        if not (work / STATE).exists():
            lessons = torch.Generator().manual_seed(seed)
            error, right = teach_text(text_encoder, data, LESSON, lessons, reader(tokenizer))
            print(f"the lesson ends with an error of {error:.4f}, and {right:.3f} of the scenes right", flush=True)
    groups = [
        {"params": list(transformer.parameters()), "lr": RATE},
        {"params": list(text_encoder.parameters()), "lr": TEXT_RATE, "weight_decay": 0.0},
    ]
    run = Run(work, {"text_encoder": text_encoder, "transformer": transformer}, groups, Plan(steps, seed))
    if not export:
        run.save()
        loss, batches = Loss(tokenizer, text_encoder, transformer), Batches(data, tokenizer)
        for _ in run.steps():
            run.step(loss(*batches.draw(batch, run.generator), run.generator))
    if processes.number():
        return
    averages = run.averages
    averages["text_encoder"].set_attn_implementation("sdpa")
    build_pipeline(tokenizer, averages["text_encoder"], averages["transformer"], autoencoder).save_pretrained(output)


if __name__ == "__main__":
    main()
