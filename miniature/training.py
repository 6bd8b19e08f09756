"""What the worlds' training scripts share: a falling rate, averaged weights, one file of state, a curve."""

from __future__ import annotations

import copy
import csv
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from . import processes

PAUSE = 30.0  # seconds; a step that took longer was stopped in between
PACE = {"average": 0.998, "warm_up": 100}  # of trainings in the drawn world
WORK = Path("work/miniature")  # the drawn world's folder; the other world has its own
COLUMNS = ("step", "minutes", "loss", "norm", "rate")
STATE, CURVE = "state.pt", "curve.csv"


@dataclass(frozen=True)
class Plan:
    """How long and how a training goes.

    Attributes:
        steps: over all runs in the folder.
        decay: last share of the steps, in which rates fall to `lowest` of themselves.
        average: of the weights' moving average.
        warm_up: steps in which rates rise.
        clip: largest norm of the gradient.
        save_every, tell_every: seconds.
    """

    steps: int
    seed: int = 0
    decay: float = 0.4
    lowest: float = 0.02
    average: float = 0.999
    warm_up: int = 200
    clip: float = 1.0
    save_every: float = 240.0
    tell_every: float = 60.0


class Run:
    """A training of some models, resumable from its folder whenever it was stopped.

    `state.pt` holds all of it and is replaced in one move; `curve.csv` gets a line now and then.

    Args:
        models: by name; their moving averages are in `averages`.
        groups: AdamW's parameter groups with their rates.
    """

    def __init__(self, folder: Path, models: Mapping[str, nn.Module], groups: Sequence[dict], plan: Plan):
        self.folder, self.models, self.plan = folder, dict(models), plan
        self.averages = {name: copy.deepcopy(model).requires_grad_(False).eval() for name, model in models.items()}
        self.generator = torch.Generator().manual_seed(plan.seed)
        self.count, self._spent = 0, 0.0
        self._optimizer = torch.optim.AdamW(list(groups), betas=(0.9, 0.98), weight_decay=1e-4)
        self._rates = [group["lr"] for group in self._optimizer.param_groups]
        self._parameters = [p for model in models.values() for p in model.parameters()]
        self._losses: list[float] = []
        self._norm = 0.0
        self._saved = self._told = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / STATE).exists():
            self._load()

    @property
    def progress(self) -> float:
        """Share of the steps that are done."""
        return min(1.0, self.count / self.plan.steps)

    def steps(self) -> Iterator[int]:
        """Step after step, to the last; then the state is saved."""
        last = time.monotonic()
        while self.count < self.plan.steps:
            yield self.count
            now = time.monotonic()
            self._spent, last = self._spent + min(now - last, PAUSE), now
            if now - self._told > self.plan.tell_every:
                self._tell(now)
            if now - self._saved > self.plan.save_every:
                self.save()
                self._saved = now
        self._tell(time.monotonic())
        self.save()

    def step(self, loss: Tensor) -> None:
        """One step of the optimiser, and of the moving averages; a loss that is no number is passed over."""
        fall = self.plan.lowest + (1 - self.plan.lowest) * min(1.0, (1 - self.progress) / self.plan.decay)
        for group, rate in zip(self._optimizer.param_groups, self._rates):
            group["lr"] = rate * fall * min(1.0, (self.count + 1) / self.plan.warm_up)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        processes.average_gradients(self._parameters)
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self.plan.clip)
        self.count += 1
        if not norm.isfinite():
            return
        self._optimizer.step()
        self._average()
        self._norm = norm.item()
        self._losses = [*self._losses[-199:], loss.item()]

    @torch.no_grad()
    def _average(self) -> None:
        keep = min(self.plan.average, (1 + self.count) / (10 + self.count))
        for name, model in self.models.items():
            ours, theirs = self.averages[name].state_dict(), model.state_dict()
            floating = [key for key in ours if ours[key].is_floating_point()]
            torch._foreach_lerp_([ours[key] for key in floating], [theirs[key] for key in floating], 1 - keep)
            for key in ours.keys() - set(floating):
                ours[key].copy_(theirs[key])

    def save(self) -> None:
        """Write the state in one move, so that a stop at any time leaves a whole one."""
        if processes.number():
            return
        state = {
            "models": {name: model.state_dict() for name, model in self.models.items()},
            "averages": {name: model.state_dict() for name, model in self.averages.items()},
            "optimizer": self._optimizer.state_dict(),
            "random": self.generator.get_state(),
            "spent": self._spent,
            "count": self.count,
        }
        part = self.folder / "state.part"
        with part.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, self.folder / STATE)

    def _load(self) -> None:
        state = torch.load(self.folder / STATE, weights_only=True)
        for name in self.models:
            self.models[name].load_state_dict(state["models"][name])
            self.averages[name].load_state_dict(state["averages"][name])
        self._optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["random"])
        self._spent, self.count = state["spent"], state["count"]
        print(f"goes on at step {self.count}", flush=True)

    def _tell(self, now: float) -> None:
        if processes.number():
            return
        loss = sum(self._losses) / max(len(self._losses), 1)
        rate = self._optimizer.param_groups[0]["lr"]
        line = (self.count, f"{self._spent / 60:.1f}", f"{loss:.5f}", f"{self._norm:.3f}", f"{rate:.2e}")
        new = not (self.folder / CURVE).exists()
        with (self.folder / CURVE).open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerows([COLUMNS, line] if new else [line])
        print("  ".join(f"{name} {value}" for name, value in zip(COLUMNS, line)), flush=True)
        self._told = now


def half_precision() -> bool:
    """Whether this processor computes in bfloat16; one that does not is slower with it than in float32."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
