"""What the world's training scripts share: a learning rate schedule, averaged weights, checkpoints."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

WARM_UP, DECAY = 100, 0.4  # steps; last share of the steps
AVERAGE = 0.998  # of the weights' moving average
SAVE_EVERY, LOG_EVERY = 120.0, 30.0  # seconds
PAUSE = 10.0  # seconds; a longer step was suspended, and counts as this


class Run:
    """A training of some models for some steps, resumable from its folder.

    Args:
        folder: for `checkpoint.pt`, from which the run resumes.
        models: by name; their moving averages are in `averages`.
        groups: AdamW's parameter groups with their learning rates.
        steps: over all runs in the folder.
    """

    def __init__(
        self,
        folder: Path,
        models: Mapping[str, nn.Module],
        groups: Sequence[dict],
        steps: int,
        seed: int,
        clip: float = 1.0,
    ):
        self.folder, self.models, self._clip = folder, dict(models), clip
        self.averages = {name: copy.deepcopy(model).requires_grad_(False).eval() for name, model in models.items()}
        self.generator = torch.Generator().manual_seed(seed)
        self._budget, self._spent, self.count = steps, 0.0, 0
        self._optimizer = torch.optim.AdamW(list(groups), betas=(0.9, 0.98), weight_decay=1e-4)
        self._lrs = [group["lr"] for group in self._optimizer.param_groups]
        self._parameters = [p for model in models.values() for p in model.parameters()]
        self._losses: list[Tensor] = []
        self._saved = self._logged = time.monotonic()
        if (self.folder / "checkpoint.pt").exists():
            self._load()

    @property
    def progress(self) -> float:
        """Share of the steps that are done."""
        return min(1.0, self.count / self._budget)

    def steps(self) -> Iterator[int]:
        """Step after step, to the last."""
        last = time.monotonic()
        while self.count < self._budget:
            yield self.count
            now = time.monotonic()
            self._spent, last = self._spent + min(now - last, PAUSE), now
            if now - self._logged > LOG_EVERY:
                self._log(now)
            if now - self._saved > SAVE_EVERY:
                self.save()
                self._saved = now

    def step(self, loss: Tensor) -> None:
        """One step of the optimiser and of the moving averages."""
        fall = min(1.0, (1 - self.progress) / DECAY) * 0.98 + 0.02
        for group, lr in zip(self._optimizer.param_groups, self._lrs):
            group["lr"] = lr * fall * min(1.0, (self.count + 1) / WARM_UP)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, self._clip)
        self._optimizer.step()
        self.count += 1
        keep = min(AVERAGE, (1 + self.count) / (10 + self.count))
        with torch.no_grad():
            for name, model in self.models.items():
                ours, theirs = self.averages[name].state_dict(), model.state_dict()
                floating = [key for key in ours if ours[key].is_floating_point()]
                torch._foreach_lerp_([ours[key] for key in floating], [theirs[key] for key in floating], 1 - keep)
                for key in ours.keys() - set(floating):
                    ours[key].copy_(theirs[key])
        self._losses.append(loss.detach())

    def save(self) -> None:
        """Write the checkpoint in one move."""
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {
            "models": {name: model.state_dict() for name, model in self.models.items()},
            "averages": {name: model.state_dict() for name, model in self.averages.items()},
            "optimizer": self._optimizer.state_dict(),
            "random": self.generator.get_state(),
            "spent": self._spent,
            "count": self.count,
        }
        torch.save(state, self.folder / "checkpoint.part")
        os.replace(self.folder / "checkpoint.part", self.folder / "checkpoint.pt")

    def finish(self) -> None:
        self._log(time.monotonic())
        self.save()

    def _load(self) -> None:
        state = torch.load(self.folder / "checkpoint.pt", weights_only=True)
        for name in self.models:
            self.models[name].load_state_dict(state["models"][name])
            self.averages[name].load_state_dict(state["averages"][name])
        self._optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["random"])
        self._spent, self.count = state["spent"], state["count"]

    def _log(self, now: float) -> None:
        recent = torch.stack(self._losses[-200:]).mean().item() if self._losses else float("nan")
        print(f"{self._spent / 60:6.1f} min  step {self.count:6d}  loss {recent:.4f}", flush=True)
        self._losses, self._logged = self._losses[-200:], now
