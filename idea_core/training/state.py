"""A broken training goes on where it stopped: weights, optimiser and random state in one file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ..files.format import FileFormat
from ..files.tensorfile import write_tensors

FORMAT = FileFormat("id-ea-training", "2", "Delete the file; the training starts anew.")
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class Resumable(Protocol):
    """A training that can be saved between two steps."""

    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    losses: list[float]
    average: dict[str, Tensor]
    """Mean weights of the last steps, by name, as far as there are any."""

    @property
    def generator(self) -> torch.Generator:
        """Of all random choices."""

    def weights(self) -> dict[str, Tensor]:
        """All that is trained, by name; writing to them changes it."""

    def read_losses(self) -> list[float]:
        """The losses of all steps so far."""


class Watching(Protocol):
    """What looks at a training, and has a state of its own."""

    def state(self) -> tuple[Mapping[str, Any], Mapping[str, Tensor]]:
        """JSON values, and tensors."""

    def restore(self, said: Mapping[str, Any], best: Mapping[str, Tensor]) -> None:
        """Go on from a `state`."""


def save_state(trainer: Resumable, path: str | os.PathLike, fingerprint: str, watch: Watching | None = None) -> Path:
    """Write a training between two steps; an existing file is replaced in one move.

    Args:
        fingerprint: of all that the training depends on; only an equal one takes it up again.
    """
    watched, best = watch.state() if watch else ({}, {})
    tensors = {f"weights.{key}": tensor for key, tensor in trainer.weights().items()}
    for number, parameter in enumerate(_parameters(trainer)):
        moments = trainer.optimizer.state.get(parameter, {})
        tensors |= {f"optimizer.{number}.{key}": torch.as_tensor(moments[key]) for key in _MOMENTS if key in moments}
    tensors |= {f"best.{key}": tensor for key, tensor in best.items()}
    tensors |= {f"average.{key}": tensor for key, tensor in trainer.average.items()}
    tensors["random"] = trainer.generator.get_state()
    metadata = {
        "fingerprint": fingerprint,
        "losses": json.dumps(trainer.read_losses()),
        "scaler": json.dumps(trainer.scaler.state_dict()),
        "watch": json.dumps(watched),
    }
    on_cpu = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    return write_tensors(path, on_cpu, FORMAT.metadata(metadata))


def restore_state(trainer: Resumable, path: str | os.PathLike, fingerprint: str, watch: Watching | None = None) -> int:
    """Bring a fresh trainer to where the file's training stood; the steps done. 0 if it was another training's.

    Raises:
        IdentityFileError: no training's state, or a damaged one.
        FileNotFoundError: no such file.
    """
    with FORMAT.reading(path) as (tensors, metadata):
        if metadata["fingerprint"] != fingerprint:
            return 0
        losses, scaler, watched = (json.loads(metadata[key]) for key in ("losses", "scaler", "watch"))
    with torch.no_grad():
        for key, weight in trainer.weights().items():
            weight.copy_(tensors[f"weights.{key}"])
    for number, parameter in enumerate(_parameters(trainer)):
        keys = {key: f"optimizer.{number}.{key}" for key in _MOMENTS}
        if keys["step"] in tensors:
            moments = {key: tensors[name].to(parameter.device) for key, name in keys.items()}
            trainer.optimizer.state[parameter] = moments | {"step": tensors[keys["step"]]}
    for key, weight in trainer.weights().items():
        if f"average.{key}" in tensors:
            trainer.average[key] = tensors[f"average.{key}"].to(weight.device)
    trainer.generator.set_state(tensors["random"])
    trainer.losses[:] = losses
    if scaler:
        trainer.scaler.load_state_dict(scaler)
    if watch and watched:
        device = next(iter(trainer.weights().values())).device
        best = {key.removeprefix("best."): part.to(device) for key, part in tensors.items() if key.startswith("best.")}
        watch.restore(watched, best)
    return len(trainer.losses)


def _parameters(trainer: Resumable) -> list[Tensor]:
    return [parameter for group in trainer.optimizer.param_groups for parameter in group["params"]]
