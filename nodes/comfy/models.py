"""What ID-EA has to know of a ComfyUI MODEL and CLIP: their family, and how to reach the text encoder."""

from __future__ import annotations

from collections.abc import Mapping

import comfy.model_management
import comfy.model_sampling
import comfy.utils
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import Tensor

from ...idea_core.diffusion.schedule import PREDICTIONS, DiscreteSchedule, Schedule
from ...idea_core.errors import BaseModelError
from ...idea_core.families import BASE_MODELS, IN_ONE_FILE, of_encoders, of_unet
from ...idea_core.families.ldm_names import KV_LAYERS

_FIX = "Load a checkpoint of a supported family; MODEL and CLIP belong to the same one."


class TextEncoders:
    """The text encoders inside a CLIP.

    Attributes:
        models: by their names in identity files, ComfyUI's `SDClipModel`s, in the order of the text condition.
    """

    def __init__(self, base_model: str, clip_model: torch.nn.Module, tokenizer):
        keys = BASE_MODELS[base_model].encoders
        self.models = {key: getattr(clip_model, key) for key in keys}
        self._whole = clip_model
        self._tokenizers = {key: getattr(tokenizer, key) for key in keys}

    def ids(self, text: str) -> dict[str, list[int]]:
        """Encoder → token ids without start and end."""
        return {key: one.tokenizer(text)["input_ids"][one.tokens_start : -1] for key, one in self._tokenizers.items()}

    def prepare(self, layer: int | None, device: torch.device) -> None:
        """Set what ComfyUI's CLIP sets before it encodes."""
        self._whole.reset_clip_options()
        if layer is not None:
            self._whole.set_clip_options({"layer": layer})
        self._whole.set_clip_options({"execution_device": device})

    def reset(self) -> None:
        self._whole.reset_clip_options()


def require_pair(model, clip, *, trainable: bool = False) -> str:
    """Key of the base model that MODEL and CLIP share.

    Raises:
        BaseModelError: an unsupported or mismatched pair; for training also an unsupported prediction.
    """
    key = _family_of(model)
    encoders = text_encoders_of(clip) if clip is not None else {}
    if encoders != dict(BASE_MODELS[key].encoders):
        raise BaseModelError(f"the CLIP of {_describe(key)}", _describe_encoders(encoders), _FIX)
    if trainable:
        prediction_of(model)
        channels, wanted = model.model.model_config.unet_config.get("in_channels"), BASE_MODELS[key].latent_channels
        if channels != wanted:
            fix = "Load a checkpoint that is not for inpainting or editing; the person fits those of its family too."
            raise BaseModelError(f"a MODEL of {wanted} latent channels to train on", str(channels), fix)
    return key


def require_vae(vae, base_model: str) -> None:
    """Raise `BaseModelError` unless a VAE is there and gives latents of the base model's channels."""
    wanted = BASE_MODELS[base_model].latent_channels
    channels = getattr(vae, "latent_channels", None) if hasattr(vae, "patcher") else None
    if channels != wanted:
        got = "a checkpoint without one" if channels is None else f"{channels} channels"
        fix = "Connect the VAE of the checkpoint, or Load VAE."
        raise BaseModelError(f"a VAE of {wanted} latent channels", got, fix)


def text_encoders_of(clip) -> dict[str, int]:
    """Text encoder → width of its token embeddings, for those encoders that a CLIP has."""
    names = {name for base in BASE_MODELS.values() for name in base.encoders}
    model = getattr(clip, "cond_stage_model", None)
    encoders = {name: getattr(model, name, None) for name in sorted(names, reverse=True)}
    return {
        name: encoder.transformer.get_input_embeddings().weight.shape[1]
        for name, encoder in encoders.items()
        if encoder is not None
    }


def current_layer(clip_model, encoder: str) -> int | None:
    """The layer, counted from the end, that a text encoder inside a CLIP is set to give; None: several of them."""
    part = getattr(clip_model, encoder)
    return {"last": -1, "hidden": part.layer_idx}.get(part.layer) if isinstance(part.layer, str) else None


def layer_of(clip) -> int | None:
    """The layer that CLIP Set Last Layer chose, or None where that acts as if nobody had chosen."""
    base = of_encoders(text_encoders_of(clip))
    depths = [getattr(clip.cond_stage_model, key).num_layers for key in base.encoders]
    layer = clip.layer_idx
    if layer is not None and abs(layer) > max(depths):
        layer = -1  # as ComfyUI reads it: the last
    return None if layer in (None, base.clip_layer) else layer


def prediction_of(model) -> str:
    """ "eps" or "v"; BaseModelError for any other parameterisation."""
    said = described_prediction(model)
    if said not in PREDICTIONS:
        fix = "Take the MODEL from before any ModelSampling node, or load another checkpoint."
        raise BaseModelError("a MODEL that predicts noise (eps) or velocity (v)", said, fix)
    return said


@torch.inference_mode(False)
def schedule_of(model, device: torch.device) -> tuple[Schedule, Tensor]:
    """The schedule that a MODEL's network was trained on, and its timesteps (T,) as the network is given them.

    ComfyUI's ``σ = √((1 − ᾱ) / ᾱ)``, so ``ᾱ = 1 / (1 + σ²)``.

    Raises:
        BaseModelError: as `prediction_of`.
    """
    sampling = model.get_model_object("model_sampling")
    alphas = (1 / (1 + sampling.sigmas.cpu().double().square())).float()  # not every device has double precision
    timesteps = sampling.timestep(sampling.sigmas).float()
    return DiscreteSchedule(alphas.to(device), prediction_of(model)), timesteps.to(device)


def described_prediction(model) -> str:
    """ "eps", "v", or what else ComfyUI calls it."""
    sampling = model.get_model_object("model_sampling")
    others = (comfy.model_sampling.EDM, comfy.model_sampling.X0)
    if isinstance(sampling, comfy.model_sampling.EPS) and not isinstance(sampling, others):
        return "v" if isinstance(sampling, comfy.model_sampling.V_PREDICTION) else "eps"
    return _parents(sampling)


def _family_of(model) -> str:
    supported = ", ".join(base.title for base in IN_ONE_FILE)
    inner = getattr(model, "model", None)
    config = getattr(inner, "model_config", None)
    name = type(config).__name__
    unet = getattr(inner, "diffusion_model", None)
    if not isinstance(unet, UNetModel):
        raise BaseModelError(f"a MODEL of {supported}", name, _FIX)
    width = config.unet_config.get("context_dim")
    base = of_unet(width, config.unet_config.get("adm_in_channels"))
    if base is None:
        raise BaseModelError(f"a MODEL of {supported}", f"{name} with text width {width}", _FIX)
    return base.key


def best_dtype(device: torch.device) -> torch.dtype:
    """What a device computes in fastest: on the CPU single precision."""
    management = comfy.model_management
    if management.is_device_cpu(device):
        return torch.float32
    if management.should_use_bf16(device, prioritize_performance=True):
        return torch.bfloat16
    return torch.float16 if management.should_use_fp16(device, prioritize_performance=True) else torch.float32


def layer_shape(model: torch.nn.Module, layer: str) -> tuple[int, int] | None:
    """(out, in) of a linear layer, whatever its weight is stored as; None where there is none."""
    try:
        part = comfy.utils.get_attr(model, layer)
    except AttributeError:
        return None
    if hasattr(part, "in_features"):
        return part.out_features, part.in_features
    weight = getattr(part, "weight", None)
    return None if weight is None or weight.ndim != 2 else tuple(weight.shape)


def cross_attention_shapes(model: torch.nn.Module) -> Mapping[str, tuple[int, int]]:
    """Layer → (out, in) of each key and value layer of the cross attentions."""
    names = [name for name, _ in model.named_modules() if name.endswith(KV_LAYERS)]
    return {name: shape for name in names if (shape := layer_shape(model, name))}


def _parents(sampling) -> str:
    return " + ".join(parent.__name__ for parent in type(sampling).__bases__)


def _describe(key: str) -> str:
    base = BASE_MODELS[key]
    return f"{base.title} ({_describe_encoders(base.encoders)})"


def _describe_encoders(encoders) -> str:
    return ", ".join(f"{name} of width {width}" for name, width in encoders.items()) or "no CLIP text encoder"
