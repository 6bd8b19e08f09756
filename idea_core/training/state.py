"""The state of a training in one file: weights, optimiser, random state. A training resumes from it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..files.format import FileFormat
from ..files.tensorfile import write_tensors
from .loop import MOMENTS, TrainingLoop, moments, parameters_of
from .stopping import EarlyStopping

FORMAT = FileFormat("id-ea-training", "3", "Delete the file; the training restarts.")


def save_state(
    training: TrainingLoop, path: str | os.PathLike, fingerprint: str, stopping: EarlyStopping | None = None
) -> Path:
    """Write a training between two steps; an existing file is replaced in one move.

    Args:
        fingerprint: digest of all that the training depends on; only an equal one resumes it.
    """
    stopping = stopping or EarlyStopping()
    tensors = {f"weights.{key}": tensor for key, tensor in training.weights().items()}
    tensors |= moments(training.optimizer)
    tensors |= {f"best.{key}": tensor for key, tensor in stopping.best.items()}
    tensors |= {f"average.{key}": tensor for key, tensor in training.average.items()}
    tensors["random"] = training.generator.get_state()
    metadata = {
        "fingerprint": fingerprint,
        "losses": json.dumps(training.read_losses()),
        "scaler": json.dumps(training.scaler.state_dict()),
        "scores": json.dumps(stopping.scores),
        "ended_early": stopping.reason,
    }
    on_cpu = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    return write_tensors(path, on_cpu, FORMAT.metadata(metadata))


def restore_state(
    training: TrainingLoop, path: str | os.PathLike, fingerprint: str, stopping: EarlyStopping | None = None
) -> int:
    """Restore a training; the number of steps done, 0 if the file belongs to another training.

    Raises:
        IdentityFileError: not a training's state, or a damaged one.
        FileNotFoundError: no such file.
    """
    with FORMAT.reading(path) as (tensors, metadata):
        if metadata["fingerprint"] != fingerprint:
            return 0
        losses, scaler, scores = (json.loads(metadata[key]) for key in ("losses", "scaler", "scores"))
        reason = metadata["ended_early"]
    weights = training.weights()
    training.set_weights({key: tensors[f"weights.{key}"] for key in weights})
    for number, (group, parameter) in enumerate(parameters_of(training.optimizer)):
        keys = {key: f"optimizer.{number}.{key}" for key in MOMENTS}
        if keys["step"] in tensors:
            state = {key: tensors[name].to(parameter.device) for key, name in keys.items()}
            if not (group.get("fused") or group.get("capturable")):
                state["step"] = tensors[keys["step"]]  # counted on the CPU
            training.optimizer.state[parameter] = state
    device = next(iter(weights.values())).device
    training.average |= _under("average.", tensors, device)
    training.generator.set_state(tensors["random"])
    training.losses[:] = losses
    if scaler:
        training.scaler.load_state_dict(scaler)
    if stopping:
        stopping.scores[:] = [(step, score) for step, score in scores]
        stopping.reason = reason
        stopping.best = _under("best.", tensors, device)
        if stopping.reason:
            training.stop()
    return len(training.losses)


def _under(prefix: str, tensors: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): part.to(device) for key, part in tensors.items() if key.startswith(prefix)}
