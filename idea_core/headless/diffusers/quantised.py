"""Checkpoints that ComfyUI stores in fewer bits, ``weight = stored · scale``, as plain weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import BaseModelError
from ...files.tensorfile import read_metadata
from ...files.textfile import parse_json
from ...files.weights import read_weights, tensors_in

SCALED = ("float8_e4m3fn", "float8_e5m2", "int8_tensorwise")
"""ComfyUI's formats with one scale per weight or per row."""
_FORMAT = ".comfy_quant"  # JSON in bytes
_SCALES = (".weight_scale", ".scale_weight")  # the second in older files
_METADATA = "_quantization_metadata"
_MARKS = (*_SCALES, _FORMAT, ".input_scale", ".scale_input", "scaled_fp8")
_FIX = "Choose the checkpoint in half or single precision, or in scaled fp8."


def plain_weights(path: Path, under: str = "", dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """The tensors of a file, quantised ones multiplied by their scales.

    Args:
        under, dtype: quantised weights whose names begin with `under` are returned in `dtype`, others in float32.

    Raises:
        BaseModelError: weights in a format that is not known.
        IdentityFileError: not a weight file, damaged, or a pickle with more than weights in it.
    """
    weights = tensors_in(read_weights(path))
    _require_known(weights, _formats(weights, read_metadata(path)), path.name)
    scales = {key.removesuffix(suffix): key for suffix in _SCALES for key in weights if key.endswith(suffix)}
    for layer, key in scales.items():
        name = f"{layer}.weight"
        if name in weights:
            kept = dtype if under and name.startswith(under) else torch.float32
            weights[name] = _scaled(weights[name], weights[key], name, path.name).to(kept)
    return {key: tensor for key, tensor in weights.items() if not key.endswith(_MARKS)}


def _formats(weights: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, Any]:
    """Layer → its format in the file's own words; None for an unreadable one."""
    formats: dict[str, Any] = {}
    try:
        formats |= parse_json(metadata[_METADATA])["layers"] if _METADATA in metadata else {}
    except (ValueError, KeyError, TypeError):
        formats[_METADATA] = None
    for key in (key for key in weights if key.endswith(_FORMAT)):
        layer = key.removesuffix(_FORMAT)
        try:
            formats[layer] = json.loads(bytes(weights[key].to(torch.uint8).tolist()))
        except ValueError:
            formats[layer] = None
    return formats


def _require_known(weights: Mapping[str, Tensor], formats: Mapping[str, Any], name: str) -> None:
    """Raise unless each quantised weight has a format of `SCALED` and a scale."""
    for layer, entry in formats.items():
        entry = entry if isinstance(entry, Mapping) else {}
        rotated = entry.get("convrot") or (entry.get("params") or {}).get("convrot")
        if entry.get("format") not in SCALED or rotated:
            kind = f"{entry.get('format') or 'an unknown format'}{' with convrot' if rotated else ''}"
            raise _unknown(name, f"{kind} in {layer}")
    for key, tensor in weights.items():
        layer = key.removesuffix(".weight")
        scaled = any(f"{layer}{suffix}" in weights for suffix in _SCALES)
        whole = not tensor.is_floating_point() and not tensor.is_complex()
        if key.endswith(".weight") and not scaled and (whole or layer in formats):
            raise _unknown(name, f"{tensor.dtype} without a scale in {key}")


def _unknown(name: str, got: str) -> BaseModelError:
    return BaseModelError(f"weights in floating point, or scaled as {', '.join(SCALED)}, in {name}", got, _FIX)


def _scaled(weight: Tensor, scale: Tensor, key: str, name: str) -> Tensor:
    """``weight · scale`` in float32, with one scale for all rows or one for each."""
    if scale.numel() == 1:
        return weight.float() * scale.float().reshape(())
    if scale.numel() != weight.shape[0] or scale.shape[0] != weight.shape[0]:
        raise _unknown(name, f"a scale of shape {tuple(scale.shape)} for {key} of shape {tuple(weight.shape)}")
    return weight.float() * scale.float().reshape(-1, *[1] * (weight.ndim - 1))
