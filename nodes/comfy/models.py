"""A ComfyUI MODEL and CLIP: their family, schedule and layers, and access to the text encoders."""

from __future__ import annotations

import re
from collections.abc import Mapping

import comfy.model_management
import comfy.model_sampling
import comfy.utils
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import Tensor

from ...idea_core.diffusion.schedule import DISCRETE, FLOW, DiscreteSchedule, FlowSchedule, Schedule
from ...idea_core.errors import BaseModelError
from ...idea_core.families import BASE_MODELS, IN_COMFYUI, BaseModel, of_config, of_unet
from ...idea_core.families.ldm_names import KV_LAYERS
from ...idea_core.method.kv import FusedKV
from .stand_ins import reader_of

_TEXT_WIDTHS = ("context_dim", "context_in_dim", "cap_feat_dim")  # ComfyUI's names, by network
_FLOWS = (comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.ModelSamplingFlux)
_QUANTISED = "Nunchaku"  # before the name of a configuration whose network is that pack's
_KERNELS_OWN = "qweight"  # of Nunchaku's layers, which a kernel reads without calling the layer
_FIX = "Load a checkpoint of a supported family; MODEL and CLIP belong to the same one."


class TextEncoders:
    """The text encoders inside a CLIP.

    Attributes:
        models: name in identity files → ComfyUI's `SDClipModel`, in the order of the text condition.
    """

    def __init__(self, base_model: str, clip_model, tokenizer):
        keys = BASE_MODELS[base_model].encoders
        self.models = {key: getattr(clip_model, key) for key in keys}
        self._whole = clip_model
        self._tokenizers = {key: reader_of(tokenizer, key) for key in keys}

    def ids(self, text: str) -> dict[str, list[int]]:
        """Encoder → token ids without start and end."""
        return {key: _ids(one, text) for key, one in self._tokenizers.items()}

    def prepare(self, layer: int | None, device: torch.device) -> None:
        """Set the options that ComfyUI's CLIP sets before it encodes."""
        self._whole.reset_clip_options()
        if layer is not None:
            self._whole.set_clip_options({"layer": layer})
        self._whole.set_clip_options({"execution_device": device})

    def reset(self) -> None:
        self._whole.reset_clip_options()


def _ids(reader, text: str) -> list[int]:
    ended = getattr(reader, "tokenizer_adds_end_token", True)
    return reader.tokenizer(text)["input_ids"][reader.tokens_start : -1 if ended else None]


def require_pair(model, clip, *, trainable: bool = False) -> str:
    """Key of the base model of MODEL and CLIP.

    Raises:
        BaseModelError: an unsupported or mismatched pair; for training also an unsupported prediction.
    """
    key = family_of(model)
    encoders = text_encoders_of(clip) if clip is not None else {}
    wanted = {**BASE_MODELS[key].encoders, **BASE_MODELS[key].plain_encoders}
    if encoders != wanted:
        own = _describe_encoders(wanted)
        raise BaseModelError(f"the CLIP of {BASE_MODELS[key].title} ({own})", _describe_encoders(encoders), _FIX)
    if trainable:
        prediction_of(model)
        sizes, wanted = model.model.model_config.unet_config, BASE_MODELS[key].latent_channels
        channels, patched = sizes.get("in_channels"), wanted * sizes.get("patch_size", 1) ** 2
        if channels not in (wanted, patched):  # some networks count those of a whole patch
            fix = "Load a checkpoint that is not for inpainting or editing; the person fits those of its family too."
            raise BaseModelError(f"a MODEL of {wanted} latent channels to train on", str(channels), fix)
    return key


def require_vae(vae, base_model: str) -> None:
    """Raise `BaseModelError` unless there is a VAE with the base model's latent channels."""
    wanted = BASE_MODELS[base_model].latent_channels
    channels = getattr(vae, "latent_channels", None) if hasattr(vae, "patcher") else None
    if channels != wanted:
        got = "a checkpoint without one" if channels is None else f"{channels} channels"
        fix = "Connect the VAE of the checkpoint, or Load VAE."
        raise BaseModelError(f"a VAE of {wanted} latent channels", got, fix)


def text_encoders_of(clip) -> dict[str, int]:
    """Text encoder → width of its token embeddings, for the encoders of a CLIP."""
    names = {name for base in BASE_MODELS.values() for name in (*base.encoders, *base.plain_encoders)}
    model = getattr(clip, "cond_stage_model", None)
    encoders = {name: getattr(model, name, None) for name in sorted(names, reverse=True)}
    return {
        name: encoder.transformer.get_input_embeddings().weight.shape[1]
        for name, encoder in encoders.items()
        if encoder is not None
    }


def current_layer(clip_model, encoder: str) -> int | None:
    """Output layer of a text encoder inside a CLIP, counted from the end; None: several layers."""
    part = getattr(clip_model, encoder)
    return {"last": -1, "hidden": part.layer_idx}.get(part.layer) if isinstance(part.layer, str) else None


def layer_of(clip, base_model: str) -> int | None:
    """The layer from CLIP Set Last Layer; None if it is the base model's own."""
    encoders, layer = text_encoders_of(clip), clip.layer_idx
    depths = [getattr(clip.cond_stage_model, key).num_layers for key in encoders]
    if layer is not None and abs(layer) > max(depths):
        layer = -1  # ComfyUI uses the last layer then
    return None if layer in (None, BASE_MODELS[base_model].clip_layer) else layer


def prediction_of(model) -> str:
    """ "eps" or "v", or "flow" of a transformer; BaseModelError for any other parameterisation."""
    prediction = described_prediction(model)
    flows = BASE_MODELS[family_of(model)].transformer is not None
    if prediction not in ((FLOW,) if flows else DISCRETE):
        wanted = "a flow" if flows else "noise (eps) or velocity (v)"
        fix = "Take the MODEL from before any ModelSampling node, or load another checkpoint."
        raise BaseModelError(f"a MODEL that predicts {wanted}", prediction, fix)
    return prediction


def flow_of(model) -> FlowSchedule:
    """The schedule of a transformer, with the shift that its MODEL samples with; it raises as `prediction_of`."""
    prediction_of(model)
    middle = float(model.get_model_object("model_sampling").percent_to_sigma(0.5))
    return FlowSchedule(shift=middle / (1 - middle))


@torch.inference_mode(False)
def schedule_of(model, device: torch.device) -> tuple[Schedule, Tensor]:
    """The training schedule of a MODEL's network, and the timesteps (T,) that the network takes.

    ComfyUI's ``σ = √((1 − ᾱ) / ᾱ)``, so ``ᾱ = 1 / (1 + σ²)``. It raises as `prediction_of`.
    """
    sampling = model.get_model_object("model_sampling")
    alphas = (1 / (1 + sampling.sigmas.cpu().double().square())).float()  # not every device has double precision
    timesteps = sampling.timestep(sampling.sigmas).float()
    return DiscreteSchedule(alphas.to(device), prediction_of(model)), timesteps.to(device)


def described_prediction(model) -> str:
    """ "eps", "v", "flow", or ComfyUI's own name of another prediction."""
    sampling = model.get_model_object("model_sampling")
    others = (comfy.model_sampling.EDM, comfy.model_sampling.X0)
    if isinstance(sampling, comfy.model_sampling.EPS) and not isinstance(sampling, others):
        return "v" if isinstance(sampling, comfy.model_sampling.V_PREDICTION) else "eps"
    if isinstance(sampling, comfy.model_sampling.CONST) and isinstance(sampling, _FLOWS):
        return FLOW
    return " + ".join(parent.__name__ for parent in type(sampling).__bases__)


def family_of(model) -> str:
    inner = getattr(model, "model", None)
    config = getattr(inner, "model_config", None)
    base, got = None, type(config).__name__
    if config is not None:
        sizes = config.unet_config
        width = next((sizes[name] for name in _TEXT_WIDTHS if sizes.get(name)), None)
        unet = isinstance(getattr(inner, "diffusion_model", None), UNetModel)
        base = of_unet(width, sizes.get("adm_in_channels")) if unet else of_config(got.removeprefix(_QUANTISED), width)
        got += f" with text width {width}"
    if base is None:
        raise BaseModelError(f"a MODEL of {', '.join(base.title for base in IN_COMFYUI)}", got, _FIX)
    return base.key


def best_dtype(model, device: torch.device) -> torch.dtype:
    """The fastest precision of a device for a MODEL; single precision on the CPU."""
    management, known = comfy.model_management, model.model.model_config.supported_inference_dtypes
    if management.is_device_cpu(device):
        return torch.float32
    if management.should_use_bf16(device, prioritize_performance=True) or torch.float16 not in known:
        return torch.bfloat16
    return torch.float16 if management.should_use_fp16(device, prioritize_performance=True) else torch.float32


def layer_shape(model: torch.nn.Module, layer: str) -> tuple[int, int] | None:
    """(out, in) of a linear layer, however its weight is stored; None without such a layer."""
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


def fused_layers(network: torch.nn.Module, base: BaseModel) -> dict[str, FusedKV]:
    """Layer of a network → its keys and values in files, in the network's order."""
    assert base.transformer is not None
    found: dict[str, FusedKV] = {}
    for name, part in network.named_modules():
        for rule in base.transformer.kv:
            match = re.fullmatch(rule.layer, name)
            if match and hasattr(part, "in_features") and not hasattr(part, _KERNELS_OWN):
                found[name] = FusedKV(match.expand(rule.keys), match.expand(rule.values), rule.text_only)
    return found


def _describe_encoders(encoders) -> str:
    return ", ".join(f"{name} of width {width}" for name, width in encoders.items()) or "no CLIP text encoder"
