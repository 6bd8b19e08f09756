"""How fast a training step is on this device, and what of it each measure gives, in one run of limited time.

    python -m benchmarks.speed --budget 540                       on a GPU: models of full size, all cases that fit
    python -m benchmarks.speed --device cpu --model sd1 --batch-size 1        thin models, to see that it runs

Models have random weights; on a GPU the UNets are in bfloat16. The most important case comes first. Each row is printed
and written to `benchmarks/results/speed.jsonl` as soon as it is measured, so a run that is cut off leaves what it has.

Columns: seconds of a step without waiting for each one, as a training does it, and alone; images a second; share of the
rate that a large matrix product reaches in the same run; peak memory, what PyTorch keeps of the device, and what of it
recordings have; seconds of the set-up, and until the first step at full speed; kernels of a step, and the seconds in
which the GPU works; the first losses' largest relative difference to those of computed steps.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
from torch.utils.flop_counter import FlopCounterMode

from idea_core import Trainer
from idea_core.diffusion.precision import TrainingArithmetic
from idea_core.text.captions import CAPTIONS
from idea_core.training.config import PRESETS
from idea_core.training.faster import TRIAL

from .alternatives import lora, textual_inversion
from .random_models import random_pipeline
from .tables import flops_per_second, now, write
from .train import PAPER, PublishedLoop, _photos, _trainer

RESULTS = Path(__file__).parent / "results" / "speed.jsonl"
FIRST = TRIAL + 2  # steps before the timed ones


@dataclass(frozen=True)
class Way:
    """How a step is computed, or whose step it is."""

    name: str
    static: bool = False  # all batches have one shape, as a recording needs it
    recorded: bool = False
    tf32: bool = False  # for text encoders and Adapter
    cudnn: bool = False  # its attention first
    channels_last: bool = False
    compiled: bool = False
    other: str = ""
    estimate: float = 20.0  # seconds that it may take

    @property
    def on_gpu_alone(self) -> bool:
        return self.recorded or self.channels_last or self.compiled


COMPUTED = Way("computed")
STATIC = Way("computed, of one shape", static=True)
RECORDED = Way("CUDA graph", recorded=True)
TF32 = Way("CUDA graph, TF32", recorded=True, tf32=True)
CUDNN = Way("CUDA graph, cuDNN attention", recorded=True, cudnn=True)
PRODUCT = Way("CUDA graph, TF32, cuDNN attention (what a training does)", recorded=True, tf32=True, cudnn=True)
LAST = replace(PRODUCT, name="the same, channels last", channels_last=True)
COMPILED = replace(LAST, name="the same, compiled", compiled=True, estimate=150)
PUBLISHED = Way("published loop", other="published")
INVERSION = Way("diffusers' Textual Inversion", other="textual_inversion", tf32=True)
LORA = Way("LoRA of peft", other="lora", tf32=True)

CASES: Sequence[tuple[str, int, Sequence[Way]]] = (
    ("sd2", 8, (COMPUTED, PRODUCT, PUBLISHED, INVERSION, LORA, STATIC, RECORDED, TF32, CUDNN, LAST, COMPILED)),
    ("sd1", 4, (COMPUTED, PRODUCT, INVERSION, LORA)),
    ("sd2", 4, (COMPUTED, PRODUCT)),
    ("sdxl", 4, (COMPUTED, PRODUCT)),
    ("sd2", 1, (COMPUTED, PRODUCT)),
    ("sd1", 1, (COMPUTED, PRODUCT, INVERSION, LORA)),
    ("sd1", 8, (COMPUTED, PRODUCT)),
    ("sdxl", 1, (COMPUTED, PRODUCT)),
    ("sdxl", 8, (COMPUTED, PRODUCT)),
    ("sd1", 4, (COMPILED,)),
)


@dataclass(frozen=True)
class Machine:
    """Where and how long it is measured."""

    device: str
    steps: int

    @property
    def full(self) -> bool:
        return self.device != "cpu"

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.full else torch.float32


@click.command()
@click.option("--steps", type=int, default=20, help="Timed steps of each case.")
@click.option("--budget", type=float, default=540.0, help="Seconds in all.")
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu")
@click.option("--model", "models", multiple=True, help="sd1, sd2, sdxl. Default: all.")
@click.option("--batch-size", "sizes", type=int, multiple=True, help="1, 4, 8. Default: all.")
@click.option("--results", type=Path, default=RESULTS, help="File for the rows.")
def speed(steps: int, budget: float, device: str, models: Sequence[str], sizes: Sequence[int], results: Path) -> None:
    """Seconds of a training step by model, batch and way."""
    machine, start = Machine(device, steps), time.perf_counter()
    rate = flops_per_second(device, machine.dtype)
    for family, batch_size, ways in CASES:
        if (models and family not in models) or (sizes and batch_size not in sizes):
            continue
        flops, losses = None, None
        for way in ways:
            if way.on_gpu_alone and not machine.full:
                continue
            row: dict[str, Any] = {"model": family, "batch_size": batch_size, "way": way.name}
            if time.perf_counter() - start + way.estimate > budget:
                print(f"left out, as the time is up: {row}")
                continue
            try:
                found = _measure(family, batch_size, way, machine, count=flops is None)
            except Exception as error:  # a case that fails must not take the others with it
                row["failed"] = f"{type(error).__name__}: {str(error)[:200]}"
            else:
                if found is None:
                    continue
                flops, own = found.pop("flops", None) or flops, found.pop("losses", None)
                losses = losses or own
                row |= found
                if own and losses:
                    row["loss_difference"] = max(abs(a - b) / abs(b) for a, b in zip(own, losses))
                if flops and not way.other:
                    row |= {"tflop": flops / 1e12, "of_a_matmul": flops / found["seconds"] / rate}
            write(results, "speed", device, [row], steps=steps, full_size=machine.full, matmul_tflops=rate / 1e12)
            gc.collect()
            if machine.full:
                torch.cuda.empty_cache()


def _measure(family: str, batch_size: int, way: Way, machine: Machine, count: bool) -> dict[str, Any] | None:
    """The row of one way; None where it is not installed, or is not for this model."""
    device, side = machine.device, (1024 if family == "sdxl" else 512) if machine.full else 64
    if machine.full:
        torch.cuda.reset_peak_memory_stats()
    dtype = torch.float32 if way.other == "published" else machine.dtype  # its matrix inverse knows no half precision
    pipeline = random_pipeline(family, machine.full, device, dtype)
    if way.channels_last:
        pipeline.unet.to(memory_format=torch.channels_last)
    begin = now(device)
    config = replace(PAPER if way.other == "published" else PRESETS["fast"], steps=10**9, batch_size=batch_size)
    trainer = _trainer(pipeline, config, side)
    set_up = now(device) - begin
    with ExitStack() as stack:
        stack.enter_context(TrainingArithmetic(torch.device(device), machine.dtype, way.tf32, way.cudnn))
        if way.other:
            step = _other(way, pipeline, trainer, family, batch_size, side)
            if step is None:
                return None
        else:
            stack.enter_context(trainer.active())
            if way.compiled:
                trainer.backbone.compile()
            if not way.recorded:
                trainer.faster = None
            step = partial(trainer.computed_step, fixed=True) if way.static else trainer.step
        begin = now(device)
        losses = [float(step(trainer.sampler.draw())) for _ in range(FIRST)]
        ready = now(device) - begin
        found = {"set_up": set_up, "ready": ready, **_timed(step, trainer, batch_size, machine)}
        if way.recorded and trainer.faster is not None and trainer.faster.reason:
            found["computed_because"] = trainer.faster.reason
        if not way.other:
            found["losses"] = losses
            if count:
                with FlopCounterMode(display=False) as counter:
                    trainer.computed_step(trainer.sampler.draw())
                found["flops"] = counter.get_total_flops()
    return found


def _other(
    way: Way, pipeline, trainer: Trainer, family: str, batch_size: int, side: int
) -> Callable[[Any], Any] | None:
    """A step of somebody else's loop with our draws; None where there is none."""
    if way.other == "published":
        if family != "sd2":
            return None
        return PublishedLoop(pipeline, _photos(side), CAPTIONS["paper"], trainer.config, trainer.weights()).step
    make = lora if way.other == "lora" else textual_inversion
    step, latents = make(pipeline, CAPTIONS["photo"], batch_size), trainer.dataset.buckets[0].latents.mean
    device = latents.device
    if step is None:
        return None
    return lambda batch: step(latents[batch.photos.to(device)], batch.noise.to(device), batch.levels.to(device))


def _timed(step: Callable[[Any], Any], trainer: Trainer, batch_size: int, machine: Machine) -> dict[str, Any]:
    device, alone = machine.device, []
    for _ in range(machine.steps):
        begin = now(device)
        step(trainer.sampler.draw())
        alone.append(now(device) - begin)
    begin = now(device)
    for _ in range(machine.steps):
        step(trainer.sampler.draw())
    seconds = (now(device) - begin) / machine.steps
    found = {"seconds": seconds, "alone": statistics.median(alone), "images_per_second": batch_size / seconds}
    if machine.full:
        found["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
        found["reserved_gib"] = torch.cuda.max_memory_reserved() / 2**30  # what a recording keeps, too
        found["graph_gib"] = trainer.graph_bytes / 2**30
        found |= _profiled(lambda: step(trainer.sampler.draw()))
    return found


def _profiled(step: Callable[[], Any]) -> dict[str, Any]:
    """Kernels of a step, and the seconds in which the device computes."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        step()
        torch.cuda.synchronize()
    events = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    return {"kernels": len(events), "busy": sum(event.device_time for event in events) / 1e6}


if __name__ == "__main__":
    speed()
