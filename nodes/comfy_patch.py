"""What Apply ID-Adapter hangs into MODEL: the adapter's difference and the K/V deltas.

The difference travels with the conditioning under a key of its own, and the MODEL adds it to the text condition at each
step, before that is given to UNet and ControlNets. Strength and schedule live here: a conditioning does not depend on
them.

K/V deltas are weight patches, which act on every prompt at no cost, or a side branch of the layers that acts on the
rows of those prompts alone that hold the person.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial

import comfy.conds
import comfy.lora
import comfy.utils
import torch
from comfy.patcher_extension import PatcherInjection, WrappersMP
from torch import Tensor
from torch.nn.functional import linear

from ..idea_core.errors import BaseModelError
from ..idea_core.identity import Identity
from ..idea_core.kv import DOWN, FULL, UP, layers_of, shape_of

_rows: ContextVar[Mapping[str, Tensor]] = ContextVar("rows", default={})  # noqa: B039 - never changed in place
"""During a call of the UNet: key of a person → 1 for each row (B, 1, 1) whose prompt holds the person, else 0."""


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

    @property
    def rows_key(self) -> str:
        """The entry that says whether a prompt holds the person."""
        return f"{self.key}_here"

    def __deepcopy__(self, _memo) -> AdapterSchedule:
        return self  # MODEL clones share it

    def extra_conds(self, previous: Callable) -> Callable:
        """The model's `extra_conds`, with the difference beside the text; zeros where the prompt has no person."""

        def extra_conds(**kwargs):
            conds = previous(**kwargs)
            context = kwargs.get("cross_attn")
            if context is not None:
                difference = kwargs.get(self.key)
                conds[self.key] = comfy.conds.CONDCrossAttn(_fit(difference, context))
                here = torch.full((1, 1, 1), float(difference is not None), device=context.device)
                conds[self.rows_key] = comfy.conds.CONDRegular(here)
            return conds

        return extra_conds

    def adapt(self, executor, model, conds: list, x, sigmas: Tensor, model_options: dict):
        """Wrapper of ComfyUI's `calc_cond_batch`: ``c_crossattn + strength · difference``, for UNet and ControlNets."""
        if self._active(model.model_sampling, sigmas):
            conds = [part and [self._adapted(entry) for entry in part] for part in conds]
        return executor(model, conds, x, sigmas, model_options)

    def mark_rows(self, executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options={}, **more):
        """Wrapper of ComfyUI's `apply_model`: says in `_rows` which prompts of the batch hold the person."""
        rows = more.get(self.rows_key)
        before = _rows.set({**_rows.get(), self.key: None if rows is None else rows.to(x)})
        try:
            return executor(x, t, c_concat, c_crossattn, control, transformer_options, **more)
        finally:
            _rows.reset(before)

    def _adapted(self, entry: dict) -> dict:
        """One prompt's conditioning, as ComfyUI's sampling has it; the same person may have been applied twice."""
        parts = entry.get("model_conds", {})
        if not {self.key, "c_crossattn"} <= parts.keys():
            return entry
        text, difference = parts["c_crossattn"].cond, parts[self.key].cond
        adapted = comfy.conds.CONDCrossAttn(text + self.strength * difference.to(text))
        return {**entry, "model_conds": {**parts, "c_crossattn": adapted}}

    def _active(self, sampling, sigmas: Tensor) -> bool:
        if self.strength == 0:
            return False
        if self.start_percent <= 0 and self.end_percent >= 1:
            return True  # without waiting for the device
        sigma = float(sigmas[0])
        first, last = sampling.percent_to_sigma(self.start_percent), sampling.percent_to_sigma(self.end_percent)
        return last <= sigma <= first


@dataclass(frozen=True, eq=False)
class SideBranch:
    """K/V deltas beside the layers' own weights, for the rows of prompts that hold the person.

    ComfyUI hangs it into the model's layers while a MODEL with it is loaded; clones of the MODEL share it.

    Attributes:
        key: the person's, in `_rows`.
        strength: factor on the deltas.
    """

    key: str
    kv: Mapping[str, Tensor]
    strength: float
    _handles: dict = field(default_factory=dict)  # by MODEL clone, each of which may be dropped while another is loaded
    _weights: dict = field(default_factory=dict)  # on devices

    def injection(self) -> PatcherInjection:
        return PatcherInjection(inject=self._hang_in, eject=self._take_out)

    def _hang_in(self, patcher) -> None:
        parts = {layer: comfy.utils.get_attr(patcher.model, layer) for layer in layers_of(self.kv)}
        hooks = [part.register_forward_hook(partial(self._add, layer)) for layer, part in parts.items()]
        self._handles.setdefault(id(patcher), []).extend(hooks)

    def _take_out(self, patcher) -> None:
        for handle in self._handles.pop(id(patcher), []):
            handle.remove()
        if not self._handles:
            self._weights.clear()

    def _add(self, layer: str, _part, inputs: tuple, output: Tensor) -> Tensor:
        rows = _rows.get().get(self.key)
        if rows is None or len(rows) != len(output):
            return output
        change = inputs[0]
        for weight in self._on(layer, change):
            change = linear(change, weight)
        return output + rows.to(output) * change

    def _on(self, layer: str, like: Tensor) -> tuple[Tensor, ...]:
        """The layer's delta as matrices to multiply with, one after the other; the last has the strength in it."""
        place = layer, like.device, like.dtype
        if place not in self._weights:
            names = (layer + FULL,) if layer + FULL in self.kv else (layer + DOWN, layer + UP)
            *first, last = (self.kv[name].to(like.device, torch.float32) for name in names)
            self._weights[place] = tuple(weight.to(like.dtype) for weight in (*first, self.strength * last))
        return self._weights[place]


def patch_model(model, identity: Identity, schedule: AdapterSchedule, kv_strength: float, scoped: bool = False):
    """A clone of MODEL with the person's difference and K/V deltas.

    Args:
        scoped: whether K/V deltas act on the prompts alone that hold the person.

    Raises:
        BaseModelError: a K/V delta has no layer in this MODEL.
    """
    model = model.clone()
    model.add_object_patch("extra_conds", schedule.extra_conds(model.get_model_object("extra_conds")))
    model.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "id-ea", schedule.adapt)
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "id-ea", schedule.mark_rows)
    if kv_strength != 0 and identity.kv:
        _require_layers(model, identity)
        if scoped:
            branch = SideBranch(schedule.key, identity.kv, kv_strength)
            model.set_injections(f"{schedule.key}_{len(model.injections)}", [branch.injection()])
        else:
            keys = comfy.lora.model_lora_keys_unet(model.model, {})
            model.add_patches(comfy.lora.load_lora(dict(identity.kv), keys, log_missing=False), kv_strength)
    return model


def _fit(difference: Tensor | None, context: Tensor) -> Tensor:
    """The difference at the context's length: nodes may have appended to the context since, or zeroed it out."""
    fitted = torch.zeros_like(context)
    if difference is not None and context.any():
        length = min(difference.shape[1], context.shape[1])
        fitted[:, :length] = difference[:, :length].to(fitted)
    return fitted


def _require_layers(model, identity: Identity) -> None:
    """Each K/V delta has a layer of its shape; ComfyUI alone would leave the others out with a log line."""
    weights = model.model.state_dict()
    for layer in layers_of(identity.kv):
        weight = weights.get(f"{layer}.weight")
        wanted = shape_of(identity.kv, layer)
        if weight is None or tuple(weight.shape) != wanted:
            raise BaseModelError(
                f"a MODEL with {layer} of shape {wanted}",
                "none" if weight is None else str(tuple(weight.shape)),
                f"{identity.trigger} was trained on {identity.base_checkpoint or 'another checkpoint'}: "
                "use that, or set kv_strength to 0.",
            )
