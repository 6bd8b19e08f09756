"""What Apply ID-Adapter hangs into MODEL: the adapter's difference and the K/V deltas.

The difference travels with the conditioning under a key of its own. The MODEL hands it to the UNet
like the text itself, so that it repeats and batches with it, and adds it to the text condition at
each step. Strength and schedule live here: a conditioning does not depend on them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import comfy.conds
import comfy.lora
import torch
from comfy.patcher_extension import WrappersMP

from ..idea_core.errors import BaseModelError
from ..idea_core.identity import Identity
from ..idea_core.kv import layers_of, shape_of


@dataclass(frozen=True)
class AdapterSchedule:
    """How strongly, and over which part of the sampling, the difference is added.

    Attributes:
        key: the conditioning's entry with the difference (1, L, d).
        strength: factor on it.
        start_percent, end_percent: 0 is the first step, 1 the last.
    """

    key: str
    strength: float
    start_percent: float
    end_percent: float

    def __deepcopy__(self, _memo) -> AdapterSchedule:
        return self  # MODEL clones share it

    def extra_conds(self, previous: Callable) -> Callable:
        """The model's `extra_conds`, with the difference beside the text; zeros where the prompt has no person."""

        def extra_conds(**kwargs):
            conds = previous(**kwargs)
            context = kwargs.get("cross_attn")
            if context is not None:
                conds[self.key] = comfy.conds.CONDCrossAttn(_fit(kwargs.get(self.key), context))
            return conds

        return extra_conds

    def __call__(self, executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options={}, **kwargs):
        """Wrapper of ComfyUI's `apply_model`: ``c_crossattn + strength · difference``."""
        difference = kwargs.get(self.key)  # left there: the same person may have been applied twice
        if difference is not None and self._active(executor.class_obj.model_sampling, t):
            c_crossattn = c_crossattn + self.strength * difference.to(c_crossattn)
        return executor(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs)

    def _active(self, sampling, sigmas: torch.Tensor) -> bool:
        if self.strength == 0:
            return False
        if self.start_percent <= 0 and self.end_percent >= 1:
            return True  # without waiting for the device
        sigma = float(sigmas[0])
        first, last = sampling.percent_to_sigma(self.start_percent), sampling.percent_to_sigma(self.end_percent)
        return last <= sigma <= first


def patch_model(model, identity: Identity, schedule: AdapterSchedule, kv_strength: float):
    """A clone of MODEL with the person's difference and K/V deltas.

    Raises:
        BaseModelError: a K/V delta has no layer in this MODEL.
    """
    model = model.clone()
    model.add_object_patch("extra_conds", schedule.extra_conds(model.get_model_object("extra_conds")))
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "id-ea", schedule)
    if kv_strength != 0 and identity.kv:
        keys = comfy.lora.model_lora_keys_unet(model.model, {})
        patches = comfy.lora.load_lora(dict(identity.kv), keys, log_missing=False)
        _require_layers(model, identity, patches)
        model.add_patches(patches, kv_strength)
    return model


def _fit(difference: torch.Tensor | None, context: torch.Tensor) -> torch.Tensor:
    """The difference at the context's length: nodes may have appended to the context since, or zeroed it out."""
    fitted = torch.zeros_like(context)
    if difference is not None and context.any():
        length = min(difference.shape[1], context.shape[1])
        fitted[:, :length] = difference[:, :length].to(fitted)
    return fitted


def _require_layers(model, identity: Identity, patches: dict) -> None:
    """Each K/V delta has a layer of its shape; ComfyUI alone would leave the others out with a log line."""
    weights = model.model.state_dict()
    for layer in layers_of(identity.kv):
        weight = weights.get(f"{layer}.weight")
        wanted = shape_of(identity.kv, layer)
        if f"{layer}.weight" not in patches or weight is None or tuple(weight.shape) != wanted:
            raise BaseModelError(
                f"a MODEL with {layer} of shape {wanted}",
                "none" if weight is None else str(tuple(weight.shape)),
                f"{identity.trigger} was trained on {identity.base_checkpoint or 'another checkpoint'}: "
                "use that, or set kv_strength to 0.",
            )
