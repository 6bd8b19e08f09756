"""Metadata of files in the format before the present one, under the present names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .textfile import parse_json

_METADATA = {"n": "num_tokens", "d": "cross_attention_dim"}
_TRAINING = {
    "n": "num_tokens",
    "axes_rate": "axes_lr",
    "token_rate": "token_lr",
    "adapter_rate": "adapter_lr",
    "enhancer_rate": "enhancer_lr",
    "kv_rate": "kv_lr",
    "gate": "gate_init",
    "flip": "flip_p",
    "likeness_pictures": "likeness_images",
    "averaged": "swa_fraction",
    "epsilon": "adam_epsilon",
    "rate": "lr",
    "text_rate": "text_lr",
    "likeness_rate": "likeness_lr",
    "snr": "snr_gamma",
    "noisiest": "snr_scale",
    "pictures": "num_images",
}
_REFINE = {"rate": "step_size", "at_once": "sampling_batch_size", "pictures": "num_images"}


def upgraded(metadata: Mapping[str, str]) -> dict[str, str]:
    """The metadata of an identity of format 1, or of an ID-Enhancer of format 2, as the next format has them.

    Raises:
        KeyError, ValueError: no record of a training, or one that is no JSON.
    """
    training = parse_json(metadata["training"])
    if isinstance(training, dict):
        training = _renamed(training, _TRAINING)
        if isinstance(training.get("refine"), dict):
            training["refine"] = _renamed(training["refine"], _REFINE)
    return _renamed(metadata, _METADATA) | {"training": json.dumps(training, sort_keys=True)}


def _renamed(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in values.items()}
