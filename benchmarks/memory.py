"""Peak memory of a training step on a transformer, counted and measured:  python -m benchmarks.memory

The network is Z-Image's at a seventh of its width, with random weights in single precision, on the CPU. Each case has a
process of its own; its memory is what the kernel says (VmHWM of Linux), less what is there before the step.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import click
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
from transformers import Qwen3Config, Qwen3Model

from idea_core.families import BASE_MODELS
from idea_core.headless.diffusers import FlowBackbone
from idea_core.training.config import TrainConfig
from idea_core.training.trainer import Trainer
from world3d.flow.tokenizer import build_tokenizer
from world3d.names import known_names

DIM, HEADS, LAYERS, REFINERS = 512, 4, 12, 1
SIDE = 512  # pixels
TOKENS = (SIDE // 16) ** 2 + 32  # of image and text
BYTES = 4
MIB = 2**20
CASES = (  # place of the pseudo-tokens, whether blocks are computed twice, images
    ("output", True, 1),
    ("output", True, 2),
    ("output", True, 4),
    ("output", False, 1),
    ("input", True, 1),
)


def counted(images: int) -> float:
    """MiB of the blocks' inputs, which are kept."""
    return images * (LAYERS + REFINERS) * TOKENS * DIM * BYTES / MIB


def pipeline() -> ZImagePipeline:
    torch.manual_seed(0)
    base, tokenizer = BASE_MODELS["zimage"], build_tokenizer()
    (width,) = base.encoders.values()
    sizes = {"hidden_size": width, "intermediate_size": 64, "num_hidden_layers": 3, "head_dim": 64}
    text = Qwen3Config(vocab_size=len(tokenizer), num_attention_heads=2, num_key_value_heads=1, **sizes)
    transformer = ZImageTransformer2DModel(
        dim=DIM, n_layers=LAYERS, n_refiner_layers=REFINERS, n_heads=HEADS, n_kv_heads=HEADS, cap_feat_dim=width
    )
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    vae = AutoencoderKL(**blocks, block_out_channels=(8,) * 4, norm_num_groups=4, latent_channels=16, shift_factor=0.1)
    return ZImagePipeline(FlowMatchEulerDiscreteScheduler(), vae, Qwen3Model(text), tokenizer, transformer)


def measured(space: str, twice: bool, images: int) -> float:
    """MiB that a step takes above what is there before it."""
    torch.set_num_threads(1)
    photos, face = torch.rand(images, SIDE, SIDE, 3), torch.nn.functional.normalize(torch.randn(512), dim=0)
    config = TrainConfig(steps=3, batch_size=images, space=space)
    backbone = FlowBackbone(pipeline(), gradient_checkpointing=twice)
    run = Trainer.of(backbone, photos, face, config, known_names()[:64], ["a photo of {}"])
    with run.active():
        run.step(run.sampler.draw())  # the optimiser's state is there from now on
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        before = _status("VmRSS")
        run.step(run.sampler.draw())
        return (_status("VmHWM") - before) / MIB


def _status(key: str) -> int:
    """Bytes of an entry of this process's status."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[key].split()[0]) * 1024


@click.command()
def main() -> None:
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"  # what is freed goes back at once, and does not count
    fresh = multiprocessing.get_context("spawn")
    for case in CASES:
        with ProcessPoolExecutor(1, fresh) as process:
            row: dict[str, Any] = dict(zip(("space", "computed twice", "images"), case))
            row |= {
                "counted, kept": round(counted(case[2])),
                "measured": round(process.submit(measured, *case).result()),
            }
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
