"""Checkpoints in one file (LDM format) as diffusers pipelines, without network; the conversion is diffusers' own."""

from __future__ import annotations

import gzip
import json
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_clip_checkpoint, convert_open_clip_checkpoint
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from ...errors import BaseModelError
from ...families import BASE_MODELS
from ...families.base_model import Checkpoint, ClipWeights
from .ldm_config import UNET, Weights, ldm_config
from .quantised import plain_weights
from .schedule import stable_diffusion_schedule
from .vae import load_vae, vae_from

_FIX = "Choose a checkpoint of Stable Diffusion 1.x, 2.x or XL."
VAE_FACTOR = 8  # pixels of a latent's side
CONTEXT_LENGTH = 77
_START, _END = "<|startoftext|>", "<|endoftext|>"
_PLAIN = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
PIPELINES: dict[str, tuple[type[StableDiffusionPipeline] | type[StableDiffusionXLPipeline], dict[str, Any]]] = {
    "StableDiffusionPipeline": (StableDiffusionPipeline, _PLAIN),
    "StableDiffusionXLPipeline": (StableDiffusionXLPipeline, {"add_watermarker": False}),
}
"""Name of a family's pipeline → its class and its arguments besides the models."""


def load_single_file(
    path: Path, dtype: torch.dtype, vae: Path | None = None, prediction: str | None = None
) -> StableDiffusionPipeline | StableDiffusionXLPipeline:
    """`load_pipeline` for a .safetensors or .ckpt file, on the CPU.

    Raises:
        BaseModelError: no checkpoint of a supported family, one with missing parts, or of an unknown quantisation.
        IdentityFileError: not a weight file, damaged, or a pickle with more than weights in it.
    """
    weights = plain_weights(path, UNET, dtype)
    family, config = ldm_config(weights, path.name)
    if any(key.startswith("edm_") for key in weights):
        raise BaseModelError("a model on Stable Diffusion's noise schedule", f"EDM's in {path.name}", _FIX)
    base, layout = BASE_MODELS[family], BASE_MODELS[family].checkpoint
    assert layout is not None  # `ldm_config` knows no others
    prediction = prediction or _prediction_of(layout, weights)
    unet = UNet2DConditionModel.from_single_file(dict(weights), original_config=config, torch_dtype=dtype)
    unet.register_to_config(sample_size=base.resolution_for(prediction) // VAE_FACTOR)
    parts: dict[str, Any] = {
        "unet": unet,
        "vae": load_vae(vae, family, dtype) if vae else vae_from(weights, layout, path.name, dtype),
        "scheduler": stable_diffusion_schedule(prediction, "ztsnr" in weights),
    }
    for number, (spec, width) in enumerate(zip(layout.text_encoders, base.encoders.values())):
        suffix = f"_{number + 1}" if number else ""
        parts[f"text_encoder{suffix}"] = _text_encoder(spec, width, weights, path.name)
        parts[f"tokenizer{suffix}"] = clip_tokenizer("!") if spec.open_clip else clip_tokenizer()
    pipeline, extra = PIPELINES[base.pipeline]
    return pipeline(**parts, **extra)


def _text_encoder(spec: ClipWeights, width: int, weights: Weights, name: str) -> CLIPTextModel:
    config = CLIPTextConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        hidden_act="gelu" if spec.open_clip else "quick_gelu",
        bos_token_id=49406,  # CLIP's start and end tokens; transformers' defaults are of another vocabulary
        eos_token_id=49407,
        projection_dim=spec.projection or 512,  # transformers' default if there is none
    )
    model = CLIPTextModelWithProjection(config) if spec.projection else CLIPTextModel(config)
    own = {key: tensor for key, tensor in weights.items() if key.startswith(spec.prefix)}
    if spec.open_clip:
        state = convert_open_clip_checkpoint(model, own, prefix=spec.prefix)
    else:
        state = convert_ldm_clip_checkpoint(own)
    wanted = model.state_dict()
    # transformers dropped the inner "text_model." from some classes in version 5.6.
    bare = {key.removeprefix("text_model."): tensor.float() for key, tensor in state.items()}
    converted = {key: bare.get(key.removeprefix("text_model.")) for key in wanted if not key.endswith("position_ids")}
    for key, tensor in converted.items():
        if tensor is None or tensor.shape != wanted[key].shape:
            got = "none" if tensor is None else str(tuple(tensor.shape))
            raise BaseModelError(f"{spec.prefix}{key} of shape {tuple(wanted[key].shape)} in {name}", got, _FIX)
    model.load_state_dict(converted, strict=False)
    return model.eval()


def _prediction_of(layout: Checkpoint, weights: Weights) -> str:
    """Prediction type by the file's own mark, or by the family's."""
    if "v_pred" in weights:
        return "v"
    bias, spread = layout.velocity_mark or ("", 0)
    return "v" if bias in weights and weights[bias].float().std(unbiased=False) > spread else "eps"


def clip_tokenizer(pad: str = _END) -> CLIPTokenizer:
    """The tokenizer of CLIP-L (padded with its end token), OpenCLIP-H and OpenCLIP-G (padded with "!").

    Checkpoints in one file hold no vocabulary; all of ours use OpenAI's.
    """
    packed = resources.files(__package__).joinpath("data/clip_merges.txt.gz").read_bytes()
    merges = gzip.decompress(packed).decode("utf-8").splitlines()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "vocab.json").write_text(json.dumps(vocabulary(merges)), "utf-8")
        Path(folder, "merges.txt").write_text("\n".join(["#version: 0.2", *merges]), "utf-8")
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True, model_max_length=CONTEXT_LENGTH)
    tokenizer.pad_token = pad  # set afterwards: as an argument it would turn each "!" of a text into padding
    return tokenizer


def vocabulary(merges: list[str]) -> dict[str, int]:
    """Token → id: a letter for each byte, the same at a word's end, the result of each merge, two special tokens."""
    # GPT-2's table: a printable letter for each of the 256 bytes, those that are printable themselves first.
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = [*map(chr, printable), *(chr(256 + number) for number in range(256 - len(printable)))]
    merged = [merge.replace(" ", "") for merge in merges]
    tokens = [*letters, *(letter + "</w>" for letter in letters), *merged, _START, _END]
    return {token: number for number, token in enumerate(tokens)}
