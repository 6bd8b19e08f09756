"""What a training costs: ours beside the published loop in one run, and what the hardware could do at best.

    python -m benchmarks.train loops                  ours and the published loop, in turns
    python -m benchmarks.train sizes                  steps a second and memory by base model, batch, checkpointing
    python -m benchmarks.train likeness               the same of the likeness loss, by pictures drawn at a step
    python -m benchmarks.train growth                 cost against steps, batch, vocabulary, photos, templates
    python -m benchmarks.train names                  the names' axes: computed, and read from disk

Models have random weights. On a GPU they are of full size (Stable Diffusion 2.1-base for `loops`), on a CPU of two
thin layers beside a vocabulary of full size. Each run adds its lines, with date and device, to
`benchmarks/results/train.jsonl`, and prints a table. What was not run is left out.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from idea_core import Trainer
from idea_core.faces import Face, OnnxEngine
from idea_core.headless.diffusers import DiffusersBackbone
from idea_core.method.anchor import celebrity_names, names_basis
from idea_core.method.axes import axes_kept_in
from idea_core.text.captions import CAPTIONS
from idea_core.training.config import PRESETS, TrainConfig
from miniature.world import FACE_MODELS

from .published import PublishedLoop
from .random_models import random_pipeline
from .tables import flops_per_second, now, write

RESULTS = Path(__file__).parent / "results" / "train.jsonl"
NAMES = ("brad pitt", "emma stone", "tom hanks")
PAPER = replace(PRESETS["paper"], steps=10**9)
WARM_UP = 2  # steps


logging.getLogger("diffusers").setLevel(logging.ERROR)  # of casting these models, which are nobody's


@click.group()
def train() -> None:
    """Time and memory of trainings."""


@train.command()
@click.option("--steps", type=int, default=10, help="Timed steps of each loop, in turns.")
@click.option("--batch-size", type=int, default=8)
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu")
def loops(steps: int, batch_size: int, device: str) -> None:
    """Ours and the published loop: the same model, photos, batch and draws."""
    full = device != "cpu"
    side = 512 if full else 64
    config = replace(PAPER, batch_size=batch_size)
    rows = []
    for dtype in (torch.float32, torch.bfloat16) if full else (torch.float32,):
        ours = _trainer(random_pipeline("sd2", full, device, dtype), config, side)
        start = {key: tensor.clone() for key, tensor in ours.weights().items()}
        theirs = PublishedLoop(
            random_pipeline("sd2", full, device, torch.float32), _photos(side), CAPTIONS["paper"], config, start
        )
        turns = {"ours": lambda batch, run=ours: run.step(batch), "published": theirs.step}
        seconds = _in_turns(turns, ours, steps, device)
        flops = _flops(ours)
        limit = flops / flops_per_second(device, dtype)
        for name, median in seconds.items():
            row = {"loop": name, "dtype": _short(dtype) if name == "ours" else "fp32", "seconds_per_step": median}
            row |= {"times_faster": seconds["published"] / median}
            rows.append(row | ({"of_the_limit": limit / median, "flops_per_step": flops} if name == "ours" else {}))
    write(RESULTS, "loops", device, rows, side=side, batch_size=batch_size, steps=steps, full_size=full)


@train.command()
@click.option("--steps", type=int, default=20)
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu")
def sizes(steps: int, device: str) -> None:
    """Steps a second and peak memory of the preset "fast"."""
    full, rows = device != "cpu", []
    for family in ("sd1", "sd2", "sdxl"):
        side = (1024 if family == "sdxl" else 512) if full else 64
        pipeline = random_pipeline(family, full, device, torch.bfloat16 if full else torch.float32)
        for checkpointing in (False, True):
            for batch_size in (1, 4, 8):
                config = replace(PRESETS["fast"], steps=10**9, batch_size=batch_size)
                _forget_peak(device)
                run = _trainer(pipeline, config, side, gradient_checkpointing=checkpointing)
                seconds = _in_turns({"ours": run.step}, run, steps, device)["ours"]
                row = {"model": family, "pixels": side, "batch_size": batch_size, "checkpointing": checkpointing}
                rows.append(row | {"steps_per_second": 1 / seconds, "peak_gib": _peak(device)})
                del run
    write(RESULTS, "sizes", device, rows, steps=steps, full_size=full)


@train.command()
@click.option("--steps", type=int, default=5)
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu")
def likeness(steps: int, device: str) -> None:
    """Steps a second and peak memory of the preset "likeness", beside those of "fast". The recogniser is the miniature
    world's, which is given the middle of each picture."""
    full, rows = device != "cpu", []
    for family in ("sd1", "sd2", "sdxl"):
        side = (1024 if family == "sdxl" else 512) if full else 64
        pipeline = random_pipeline(family, full, device, torch.bfloat16 if full else torch.float32)
        for preset, pictures, checkpointing in (
            ("fast", 0, False),
            ("likeness", 4, False),
            ("likeness", 4, True),
            ("likeness", 1, True),
        ):
            config = replace(PRESETS[preset], steps=10**9, likeness_images=max(1, pictures))
            _forget_peak(device)
            run = _trainer(pipeline, config, side, gradient_checkpointing=checkpointing)
            seconds = _in_turns({"ours": run.step}, run, steps, device)["ours"]
            row = {"model": family, "preset": preset, "pictures": pictures, "checkpointing": checkpointing}
            row |= {"seconds_per_step": seconds, "peak_gib": _peak(device)}
            rows.append(row | {"checkpointed": run.backbone.gradient_checkpointing, "at_once": run.micro_batch})
            del run
    write(RESULTS, "likeness", device, rows, steps=steps, full_size=full)


class MiddleFace(OnnxEngine):
    """A face in the middle of every picture: random weights draw none."""

    def detect(self, photo: np.ndarray, *_) -> list[Face]:
        return [Face.aligned(min(photo.shape[:2]))]


@train.command()
@click.option("--steps", type=int, default=10)
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu")
def growth(steps: int, device: str) -> None:
    """Seconds of a step when one thing is doubled; and of a whole training when its steps are."""
    full, rows = device != "cpu", []
    side = 512 if full else 64
    cases: Mapping[str, dict[str, Any]] = {
        "as it is": {},
        "batch × 2": {"batch_size": 8},
        "vocabulary × 2": {"vocabulary": 2 * 49408},
        "photos × 2": {"photos": 8},
        "templates × 3": {"captions": CAPTIONS["paper"]},
        "as it is, again": {},
    }
    runs = {}
    for name, case in cases.items():
        pipeline = random_pipeline("sd2", full, device, torch.float32, vocabulary=case.pop("vocabulary", 49408))
        config = replace(PRESETS["fast"], steps=10**9, batch_size=case.pop("batch_size", 4))
        runs[name] = _trainer(pipeline, config, side, **case)
    turns = {name: (lambda _batch, run=run: run.step(run.sampler.draw())) for name, run in runs.items()}
    first = runs.pop("as it is")
    with ExitStack() as stack:
        for run in runs.values():
            stack.enter_context(run.active())
        seconds = _in_turns(turns, first, steps, device)
    rows = [{"case": name, "seconds_per_step": median} for name, median in seconds.items()]
    for count in (steps, 2 * steps):
        start = now(device)
        with first.active():
            for _ in range(count):
                first.step(first.sampler.draw())
        rows.append({"case": f"{count} steps in all", "seconds": now(device) - start})
    write(RESULTS, "growth", device, rows, side=side, full_size=full)


@train.command()
@click.option("--rounds", type=int, default=3)
def names(rounds: int) -> None:
    """Seconds of the names' axes: computed, and read from disk."""
    rows = []
    for family in ("sd1", "sd2", "sdxl"):
        backbone = DiffusersBackbone(random_pipeline(family, False, "cpu", torch.float32))
        with TemporaryDirectory() as folder:
            seconds: dict[str, list[float]] = {"read": [], "computed": []}
            for number in range(2 * rounds + 2):
                kept = number % 2 == 0
                begin = time.process_time()
                with axes_kept_in(Path(folder)) if kept else nullcontext():
                    names_basis(backbone, celebrity_names(), 2, TrainConfig().axes)
                seconds["read" if kept else "computed"].append(time.process_time() - begin)
            rows += [{"model": family, "axes": way, "seconds": min(values)} for way, values in seconds.items()]
    write(RESULTS, "names", "cpu", rows, rounds=rounds)


def _trainer(
    pipeline,
    config: TrainConfig,
    side: int,
    photos: int = 4,
    captions: Sequence[str] = CAPTIONS["photo"],
    gradient_checkpointing: bool = False,
) -> Trainer:
    backbone = DiffusersBackbone(pipeline, gradient_checkpointing=gradient_checkpointing)
    face = torch.nn.functional.normalize(torch.randn(512, generator=torch.Generator().manual_seed(1)), dim=0)
    captions = CAPTIONS["paper"] if config == replace(PAPER, batch_size=config.batch_size) else captions
    engine = MiddleFace(FACE_MODELS.find()) if config.likeness_weight else None
    return Trainer.of(backbone, _photos(side, photos), face, config, NAMES, captions, engine=engine)


def _photos(side: int, count: int = 4) -> Tensor:
    return torch.rand(count, side, side, 3, generator=torch.Generator().manual_seed(0))


def _in_turns(
    turns: Mapping[str, Callable[[Any], Any]], sampler_of: Trainer, steps: int, device: str
) -> dict[str, float]:
    """Median seconds of each, taken in turns on the same batches."""
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    with sampler_of.active():
        for _ in range(WARM_UP + steps):
            batch = sampler_of.sampler.draw()
            for name, turn in turns.items():
                start = now(device)
                turn(batch)
                seconds[name].append(now(device) - start)
    return {name: statistics.median(times[WARM_UP:]) for name, times in seconds.items()}


def _flops(run: Trainer) -> int:
    """Of one step: forward, and backward as far as something learns."""
    with FlopCounterMode(display=False) as counter, run.active():
        run.step(run.sampler.draw())
    return counter.get_total_flops()


def _forget_peak(device: str) -> None:
    if device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak(device: str) -> float | None:
    return None if device == "cpu" else torch.cuda.max_memory_allocated() / 2**30


def _short(dtype: torch.dtype) -> str:
    return {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]


if __name__ == "__main__":
    train()
