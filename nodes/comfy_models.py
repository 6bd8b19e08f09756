"""What ID-EA has to know of a ComfyUI MODEL and CLIP: their family, and how to reach the text encoder."""

from __future__ import annotations

import comfy.model_sampling
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

from ..idea_core.base_models import BASE_MODELS
from ..idea_core.errors import BaseModelError

SUPPORTED = ("sd1", "sd2")
_FIX = "Load a checkpoint of a supported family; MODEL and CLIP belong to the same one."


class TextEncoder:
    """The one text encoder inside a CLIP of SD 1.x or SD 2.x.

    Attributes:
        model: ComfyUI's `SDClipModel`.
        key: its name as in identity files, "clip_l" or "clip_h".
    """

    def __init__(self, clip_model: torch.nn.Module, tokenizer):
        self.key: str = clip_model.clip
        self.model = getattr(clip_model, self.key)
        self._whole = clip_model
        self._tokenizer = getattr(tokenizer, self.key)

    def ids(self, text: str) -> list[int]:
        """Token ids without start and end."""
        return self._tokenizer.tokenizer(text)["input_ids"][self._tokenizer.tokens_start : -1]

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
        channels = model.model.model_config.unet_config.get("in_channels")
        if channels != 4:
            raise BaseModelError("a MODEL of 4 latent channels to train on", str(channels), _FIX)
    return key


def require_vae(vae) -> None:
    """Raise `BaseModelError` unless a VAE is there and gives latents of 4 channels."""
    channels = getattr(vae, "latent_channels", None) if hasattr(vae, "patcher") else None
    if channels != 4:
        got = "a checkpoint without one" if channels is None else f"{channels} channels"
        raise BaseModelError("a VAE of 4 latent channels", got, "Connect the VAE of the checkpoint, or Load VAE.")


def text_encoders_of(clip) -> dict[str, int]:
    """Text encoder → width of its token embeddings, for those encoders that a CLIP has."""
    names = {name for base in BASE_MODELS.values() for name in base.encoders}
    encoders = {name: getattr(clip.cond_stage_model, name, None) for name in sorted(names, reverse=True)}
    return {
        name: encoder.transformer.get_input_embeddings().weight.shape[1]
        for name, encoder in encoders.items()
        if encoder is not None
    }


def prediction_of(model) -> str:
    """ "eps" or "v"; BaseModelError for any other parameterisation."""
    sampling = model.get_model_object("model_sampling")
    others = (comfy.model_sampling.EDM, comfy.model_sampling.X0)
    if isinstance(sampling, comfy.model_sampling.EPS) and not isinstance(sampling, others):
        return "v" if isinstance(sampling, comfy.model_sampling.V_PREDICTION) else "eps"
    raise BaseModelError("a MODEL that predicts noise (eps) or velocity (v)", _parents(sampling), _FIX)


def _family_of(model) -> str:
    supported = " or ".join(BASE_MODELS[key].title for key in SUPPORTED)
    config = getattr(model.model, "model_config", None)
    name = type(config).__name__
    unet = getattr(model.model, "diffusion_model", None)
    if not isinstance(unet, UNetModel):
        raise BaseModelError(f"a MODEL of {supported}", name, _FIX)
    width = config.unet_config.get("context_dim")
    key = next((key for key, base in BASE_MODELS.items() if base.width == width), None)
    if key not in SUPPORTED or config.unet_config.get("adm_in_channels") is not None:
        raise BaseModelError(f"a MODEL of {supported}", f"{name} with text width {width}", _FIX)
    return key


def _parents(sampling) -> str:
    return " + ".join(parent.__name__ for parent in type(sampling).__bases__)


def _describe(key: str) -> str:
    base = BASE_MODELS[key]
    return f"{base.title} ({_describe_encoders(base.encoders)})"


def _describe_encoders(encoders) -> str:
    return ", ".join(f"{name} of width {width}" for name, width in encoders.items()) or "no CLIP text encoder"
