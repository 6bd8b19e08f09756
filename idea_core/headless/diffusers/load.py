"""Base models from disk as diffusers pipelines: a folder or a checkpoint in one file. Nothing is downloaded."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError, safe_open
from transformers.utils import logging as transformers_logging

from ...errors import BaseModelError
from ...families import HEADLESS_FLOWS
from .schedule import PREDICTION_TYPES
from .single_file import PIPELINES, load_single_file
from .text import TEXT_ENCODERS, family_of
from .vae import load_vae

FLOW_PIPELINES = frozenset(base.pipeline for base in HEADLESS_FLOWS)
"""Names of flow-matching families' pipelines."""
_INDEX = "model_index.json"
_LIBRARIES = {"diffusers", "transformers", "stable_diffusion", None}  # the third holds the safety checker
_AGAIN = "Copy it there again."
_FIX = "Give the folder of a diffusers pipeline, or a .safetensors or .ckpt file."


def load_pipeline(
    path: str | os.PathLike,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    vae: str | os.PathLike | None = None,
    prediction: str | None = None,
) -> DiffusionPipeline:
    """A text-to-image pipeline, without safety checker.

    Args:
        path: folder of a diffusers pipeline, or a checkpoint in one file.
        dtype: of network and VAE, and of language models; CLIP's text encoders are in single precision.
        vae: file or folder of a VAE that replaces the model's own.
        prediction: "eps" or "v"; None: what the model says.

    Raises:
        BaseModelError: no model, none of a supported family, or missing weights.
        IdentityFileError: a damaged file, or a pickle with more than weights in it.
    """
    path = Path(path)
    if not path.exists():
        raise BaseModelError(f"a model at {path}", "nothing there", _FIX)
    load, vae = load_single_file if path.is_file() else _load_folder, Path(vae) if vae else None
    with _without_bars():
        pipeline = load(path, dtype, vae, prediction)
    _require_whole(pipeline, path)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def _load_folder(path: Path, dtype: torch.dtype, vae: Path | None, prediction: str | None) -> DiffusionPipeline:
    name, variant = _require_plain(path), _variant(path)
    flow, dtypes = name in FLOW_PIPELINES, {"default": dtype}
    if not flow:
        dtypes |= dict.fromkeys(TEXT_ENCODERS, torch.float32)
    elif prediction:
        raise BaseModelError("no prediction for a flow-matching model", prediction, "Leave it out.")
    kind, extra = (getattr(diffusers, name, None), {}) if flow else PIPELINES[name]
    if kind is None:
        raise BaseModelError(f"a version of diffusers with {name}", diffusers.__version__, "Update diffusers.")
    try:
        pipeline = kind.from_pretrained(path, torch_dtype=dtypes, local_files_only=True, variant=variant, **extra)
    except (OSError, ValueError, ImportError, SafetensorError) as error:  # quantised parts need other packages
        reason = next(filter(None, str(error).splitlines()), type(error).__name__)
        raise BaseModelError(f"a whole pipeline in {path}", reason, _AGAIN) from None
    for part in TEXT_ENCODERS:
        _require_entries(path / part, getattr(pipeline, part, None))
    if vae:
        pipeline.register_modules(vae=load_vae(vae, family_of(pipeline), dtype))
    if prediction:
        scheduler, name = pipeline.scheduler, PREDICTION_TYPES[prediction]
        pipeline.scheduler = type(scheduler).from_config(scheduler.config, prediction_type=name)
    return pipeline


def _require_plain(path: Path) -> str:
    """The pipeline's class name. All parts must be the libraries' own classes: others would be code in the folder."""
    index = path / _INDEX
    if not index.is_file():
        raise BaseModelError(f"the folder of a diffusers pipeline, with {_INDEX}", f"{path} without it", _FIX)
    try:
        parts = json.loads(index.read_text("utf-8"))
        name = str(parts["_class_name"])
        libraries = {entry[0] for entry in parts.values() if isinstance(entry, list) and entry}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BaseModelError(f"a {_INDEX} that names a pipeline's parts in {path}", f"{error!r}", _AGAIN) from None
    known = [*PIPELINES, *sorted(FLOW_PIPELINES)]
    if name not in known:
        raise BaseModelError(f"a {' or '.join(known)} in {path}", name, _FIX)
    others = libraries - _LIBRARIES
    if others:
        got = ", ".join(sorted(map(str, others)))
        raise BaseModelError(f"parts of diffusers and transformers alone in {path}", f"some of {got}", _FIX)
    return name


def _require_whole(pipeline: Any, path: Path) -> None:
    """Raise unless each part has all its weights: diffusers leaves missing ones without memory."""
    for name, part in pipeline.components.items():
        if isinstance(part, torch.nn.Module):
            missing = [key for key, tensor in part.state_dict().items() if tensor.is_meta]
            if missing:
                got = f"none of {name}'s {missing[0]} and {len(missing) - 1} more"
                raise BaseModelError(f"all weights in {path}", got, _AGAIN)


def _require_entries(folder: Path, model: torch.nn.Module | None) -> None:
    """Raise unless the folder has each weight of a text encoder: transformers initialises missing ones at random."""
    files, keys = list(folder.glob("*.safetensors")) if model else [], set[str]()
    for file in files:
        with safe_open(file, framework="pt") as content:
            keys |= {_bare(key) for key in content.keys()}
    wanted = {_bare(key) for key in model.state_dict()} if model and files else set()
    # A language model may predict tokens by its table of embeddings, and only images are asked of it.
    missing = {key for key in wanted - keys if not key.endswith(("position_ids", "lm_head.weight"))}
    if missing:
        raise BaseModelError(f"all weights in {folder}", f"none of {sorted(missing)[0]}", _AGAIN)


def _bare(key: str) -> str:
    """A weight's name without the class that holds the text model."""
    return key.removeprefix("text_model.").removeprefix("model.")


def _variant(path: Path) -> str | None:
    """ "fp16" if the folder has the network only in half precision."""
    files = [file for part in ("unet", "transformer") for file in (path / part).glob("*.*")]
    names = [file.name for file in files if file.suffix in (".safetensors", ".bin")]
    return "fp16" if names and all(".fp16." in name for name in names) else None


@contextmanager
def _without_bars() -> Iterator[None]:
    """Inside, the libraries show no progress bars: a model's parts load in seconds."""
    shown = [library for library in (diffusers_logging, transformers_logging) if library.is_progress_bar_enabled()]
    for library in shown:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in shown:
            library.enable_progress_bar()
