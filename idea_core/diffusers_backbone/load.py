"""Base models from disk as diffusers pipelines: a folder or a checkpoint in one file. Nothing is downloaded."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from ..errors import BaseModelError
from .single_file import load_single_file
from .text import family_of
from .vae import load_vae

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
PIPELINES = {"StableDiffusionPipeline": StableDiffusionPipeline, "StableDiffusionXLPipeline": StableDiffusionXLPipeline}
_INDEX = "model_index.json"
_FIX = "Give the folder of a diffusers pipeline, or a .safetensors or .ckpt file."


def load_pipeline(
    path: str | os.PathLike,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    vae: str | os.PathLike | None = None,
    prediction: str | None = None,
) -> StableDiffusionPipeline | StableDiffusionXLPipeline:
    """A text-to-image pipeline, without safety checker.

    Args:
        path: folder of a diffusers pipeline, or a checkpoint in one file.
        dtype: of UNet and VAE; text encoders are in single precision.
        vae: a VAE's file or folder, in place of the model's own.
        prediction: "eps" or "v"; None: what the model says.

    Raises:
        BaseModelError: nothing there, no Stable Diffusion 1.x, 2.x or XL, or weights missing.
        IdentityFileError: a damaged file, or a pickle with more than weights in it.
    """
    path = Path(path)
    with _without_bars():
        pipeline = _load(path, dtype, Path(vae) if vae else None, prediction)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def _load(path: Path, dtype: torch.dtype, vae: Path | None, prediction: str | None):
    if path.is_file():
        return load_single_file(path, dtype, vae, prediction)
    if not path.is_dir():
        raise BaseModelError(f"a model at {path}", "nothing there", _FIX)
    pipeline = _load_folder(path, dtype, prediction)
    if vae:
        pipeline.register_modules(vae=load_vae(vae, family_of(pipeline), dtype))
    return pipeline


def _load_folder(path: Path, dtype: torch.dtype, prediction: str | None):
    index = path / _INDEX
    if not index.is_file():
        raise BaseModelError(f"the folder of a diffusers pipeline, with {_INDEX}", f"{path} without it", _FIX)
    name = json.loads(index.read_text("utf-8")).get("_class_name")
    if name not in PIPELINES:
        raise BaseModelError(f"a {' or '.join(PIPELINES)} in {path}", str(name), _FIX)
    extra = {"safety_checker": None, "requires_safety_checker": False} if name == "StableDiffusionPipeline" else {}
    try:
        pipeline = PIPELINES[name].from_pretrained(
            path, torch_dtype=dtype, local_files_only=True, variant=_variant(path), **extra
        )
    except (OSError, ValueError) as error:
        raise BaseModelError(
            f"a whole pipeline in {path}", str(error).splitlines()[0], "Copy it there again."
        ) from None
    for part in ("text_encoder", "text_encoder_2"):
        encoder = getattr(pipeline, part, None)
        if encoder is not None:
            encoder.float()
    if prediction:
        kind = {"eps": "epsilon", "v": "v_prediction"}[prediction]
        pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config, prediction_type=kind)
    return pipeline


def _variant(path: Path) -> str | None:
    """ "fp16" where the UNet's weights are there in half precision only."""
    names = [file.name for file in (path / "unet").glob("*.*") if file.suffix in (".safetensors", ".bin")]
    return "fp16" if names and all(".fp16." in name for name in names) else None


@contextmanager
def _without_bars() -> Iterator[None]:
    """The libraries' progress bars off, while open: a model's parts load in seconds."""
    shown = [library for library in (diffusers_logging, transformers_logging) if library.is_progress_bar_enabled()]
    for library in shown:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in shown:
            library.enable_progress_bar()
