"""What training and applying cost in ComfyUI, by part.

Run with ComfyUI's Python, in ComfyUI's folder:
    python custom_nodes/id-ea/benchmarks/in_comfyui.py CHECKPOINT [--size 64] [--steps 10] [ComfyUI's own options]

Prints one JSON object: median seconds of each part of a training step, each part's share, and the ratio of a
sampling step with Apply ID-Adapter to one without, measured in turns in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import logging
import statistics
import sys
import time
from pathlib import Path

PACK = Path(__file__).resolve().parent.parent
sys.path[0] = str(Path.cwd())  # ComfyUI before this folder

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("checkpoint", type=Path)
parser.add_argument("--size", type=int, default=64, help="side of photos and pictures in pixels")
parser.add_argument("--steps", type=int, default=10, help="training steps, and sampling steps of each run")
parser.add_argument("--batch-size", type=int, default=1)
parser.add_argument("--rounds", type=int, default=7, help="sampling runs with and without Apply, in turns")
OPTIONS, sys.argv[1:] = parser.parse_known_args()

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.model_management  # noqa: E402
import comfy.sample  # noqa: E402
import comfy.sd  # noqa: E402
import comfy.utils  # noqa: E402
import torch  # noqa: E402

import nodes  # noqa: E402

logging.getLogger().setLevel(logging.ERROR)


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def pack(name: str):
    suffix = ".nodes.extension"
    root = next(key for key in sys.modules if key.endswith(suffix)).removesuffix(suffix)
    return importlib.import_module(f"{root}.{name}")


def training(model, clip, vae) -> tuple[dict, object]:
    """Median seconds by part of a training step, and the person trained."""
    config = pack("idea_core").TrainConfig(steps=OPTIONS.steps, batch_size=OPTIONS.batch_size)
    photos = torch.rand(2, OPTIONS.size, OPTIONS.size, 3)
    face = torch.nn.functional.normalize(torch.randn(512), dim=0)
    parts: dict[str, list[float]] = {}
    with pack("nodes.comfy.backbone").ComfyBackbone(model, clip, vae) as backbone:
        trainer = pack("idea_core").Trainer.of(backbone, photos, face, config)
        with trainer.active():
            for _ in range(OPTIONS.steps + 1):
                for part, seconds in timed_step(trainer, trainer.sampler.draw()).items():
                    parts.setdefault(part, []).append(seconds)
        identity = trainer.identity("ann")
    return {part: statistics.median(seconds[1:]) for part, seconds in parts.items()}, identity


def timed_step(trainer, batch) -> dict[str, float]:
    """`Trainer.step`, with a clock between its parts; the first step warms up."""
    backbone, device, person = trainer.backbone, trainer.backbone.device, trainer.person
    latents = trainer.dataset.buckets[batch.bucket].latents.mean[batch.photos.to(device)]
    levels, noise = batch.levels.to(device), batch.noise.to(device)
    trainer.optimizer.zero_grad(set_to_none=True)
    clock = [now()]
    distinct, position = batch.captions.unique(return_inverse=True)
    captions = [trainer.dataset.captions[index] for index in distinct.tolist()]
    tokens = {encoder: [vectors] * len(captions) for encoder, vectors in person.tokens.items()}
    text = backbone.encode(captions, tokens)
    clock.append(now())
    condition = person.adapt(text)
    condition = condition.rows(position.to(device))
    clock.append(now())
    unet_done = []
    condition.context.register_hook(lambda _: unet_done.append(now()))
    loss = (
        pack("idea_core.diffusion.backbone")
        .prediction_error(backbone, latents, noise, levels, condition)
        .square()
        .mean()
    )
    clock.append(now())
    (loss + trainer.config.regularizer_weight * trainer.person.regularizer()).backward()
    clock += [*unet_done, now()]
    trainer.optimizer.step()
    clock.append(now())
    names = ("text encoder", "Enhancer and Adapter", "UNet", "UNet backward", "text backward", "optimiser")
    return {name: end - start for name, start, end in zip(names, clock, clock[1:])}


def sampling(model, clip, identity) -> dict[str, float]:
    """Median seconds per sampling step by way of applying, in turns; "without again" shows the noise."""

    def apply(strength: float, kv_strength: float) -> tuple:
        return pack("nodes.apply").ApplyAdapter.execute(model, clip, identity, strength, kv_strength, 0.0, 1.0).args

    applied, applied_clip = apply(1.0, 1.0)
    encode = nodes.CLIPTextEncode().encode
    positive, negative = encode(applied_clip, "photo of <ann> smiling")[0], encode(applied_clip, "blurry")[0]
    latent = torch.zeros(1, 4, OPTIONS.size // 8, OPTIONS.size // 8)
    noise = comfy.sample.prepare_noise(latent, 0)
    ways = {
        "without": model,
        "adapter": apply(1.0, 0.0)[0],
        "K/V": apply(0.0, 1.0)[0],
        "both": applied,
        "without again": model.clone(),
    }
    seconds = {way: [] for way in ways}

    def on_step(step, *_):
        marks.append(now())

    for _ in range(OPTIONS.rounds + 1):  # the first round warms up
        for way, patched in ways.items():
            marks: list[float] = []
            arguments = (patched, noise, OPTIONS.steps, 7.5, "euler", "normal", positive, negative, latent)
            comfy.sample.sample(*arguments, seed=0, callback=on_step, disable_pbar=True)
            seconds[way].append((marks[-1] - marks[0]) / (len(marks) - 1))
    return {way: statistics.median(times[1:]) for way, times in seconds.items()}


def main() -> None:
    comfy.utils.set_progress_bar_enabled(False)
    asyncio.run(nodes.load_custom_node(str(PACK), module_parent="custom_nodes"))
    with torch.inference_mode():
        model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(str(OPTIONS.checkpoint.resolve()))
        parts, identity = training(model, clip, vae)
        steps = sampling(model, clip, identity)
    whole = sum(parts.values())
    report = {
        "checkpoint": OPTIONS.checkpoint.name,
        "device": str(comfy.model_management.get_torch_device()),
        "size": OPTIONS.size,
        "batch_size": OPTIONS.batch_size,
        "training_step_seconds": {part: round(seconds, 5) for part, seconds in parts.items()},
        "training_step_share": {part: round(seconds / whole, 3) for part, seconds in parts.items()},
        "sampling_step_seconds": {way: round(seconds, 5) for way, seconds in steps.items()},
        "sampling_step_ratio": {way: round(seconds / steps["without"], 3) for way, seconds in steps.items()},
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
