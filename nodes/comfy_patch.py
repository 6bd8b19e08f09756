"""What Apply ID-Adapter hangs into MODEL: the adapter's strength and schedule, and the K/V deltas.

Text conditions come adapted from Apply's CLIP. Where this MODEL's strength or schedule is another, it makes them anew
at each step, from what the conditioning carries (`AdaptedText`), before UNet and ControlNets are given them.

K/V deltas are weight patches, which act on every prompt at no cost, or a side branch of the layers that acts on the
rows of those prompts alone that hold the person.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

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
from .comfy_models import layer_shape
from .comfy_text import ADAPTED, Seen

WRAPPER = "id-ea"
_UNMARKED = (
    "No prompt of this sampling is marked as holding {}. If one has the name, another node has rebuilt it. "
    "start_percent, end_percent and kv_scope 'prompts with the person' do not act on it."
)
_PASSED_BY = (
    "The adapter of {} does not act: a node encoded the prompt past Apply's CLIP. The name's word and kv_strength act. "
    "For the adapter too, encode with CLIP Text Encode."
)
_UNSCOPED = (
    "The change to keys and values of {} does not act in regions that another node computes itself. "
    "Set kv_scope of Apply ID-Adapter to 'whole model', or use ComfyUI's own masks."
)


class Rows(NamedTuple):
    """During a call of the UNet: which rows of its batch hold a person.

    Attributes:
        context: the text conditions (B, L, d) that the UNet was given.
        here: key of a person → 1 for each row (B, 1, 1) whose prompt holds the person, else 0.
    """

    context: Tensor | None
    here: Mapping[str, Tensor]


_rows: ContextVar[Rows] = ContextVar("rows", default=Rows(None, {}))  # noqa: B039 - never changed in place


@dataclass(frozen=True)
class AdapterSchedule:
    """How strongly, and over which part of the sampling, a person's adapter acts.

    Attributes:
        key: of the person's difference in `AdaptedText`.
        start_percent, end_percent: 0 is the first step, 1 the last.
        scoped: whether K/V deltas act on the prompts alone that hold the person.
        node_id: of the Apply node, which is told what cannot act.
    """

    key: str
    trigger: str
    strength: float
    start_percent: float = 0.0
    end_percent: float = 1.0
    scoped: bool = False
    seen: Seen = field(default_factory=Seen, compare=False)
    node_id: str | None = None

    @property
    def rows_key(self) -> str:
        """The condition that says whether a prompt holds the person."""
        return f"{self.key}_here"

    @property
    def always(self) -> bool:
        return self.start_percent <= 0 and self.end_percent >= 1

    def strength_at(self, sampling, sigma: float) -> float:
        """The adapter's strength at a noise level."""
        first, last = sampling.percent_to_sigma(self.start_percent), sampling.percent_to_sigma(self.end_percent)
        return self.strength if last <= sigma <= first else 0.0

    def tell(self, notice: str) -> None:
        self.seen.tell(notice.format(self.trigger), self.node_id)


@dataclass(frozen=True)
class PeopleWrapper:
    """ComfyUI's wrappers for all people who were applied to a MODEL."""

    schedules: tuple[AdapterSchedule, ...]

    def __deepcopy__(self, _memo) -> PeopleWrapper:
        return self  # MODEL clones share it

    def adapt(self, executor, model, conds: list, x, sigmas: Tensor, model_options: dict):
        """Wrapper of ComfyUI's `calc_cond_batch`: text conditions at the strengths of this step."""
        strengths = self._strengths(model.model_sampling, sigmas)
        adapted = [part and [self._adapted(entry, strengths, x.device) for entry in part] for part in conds]
        self._tell_what_is_missing(conds)
        return executor(model, adapted, x, sigmas, model_options)

    def mark_rows(self, executor, x, timesteps, context=None, *rest, **more):
        """Wrapper of the UNet: says in `_rows` which prompts of the batch hold the person."""
        keys = {schedule.key: schedule.rows_key for schedule in self.schedules}
        here = {key: more.pop(rows_key) for key, rows_key in keys.items() if rows_key in more}
        before = _rows.set(Rows(context, here))
        try:
            return executor(x, timesteps, context, *rest, **more)
        finally:
            _rows.reset(before)

    def _strengths(self, sampling, sigmas: Tensor) -> dict[str, float]:
        """Key of a person → strength at this step; who was applied twice has both."""
        strengths: dict[str, float] = defaultdict(float)
        always = all(schedule.always for schedule in self.schedules)
        sigma = None if always else float(sigmas[0])  # for which the device has to be waited for
        for schedule in self.schedules:
            strengths[schedule.key] += schedule.strength if always else schedule.strength_at(sampling, sigma)
        return dict(strengths)

    def _adapted(self, entry: dict, strengths: Mapping[str, float], device: torch.device) -> dict:
        """One prompt's conditioning, as ComfyUI's sampling has it."""
        parts, adapted = entry.get("model_conds", {}), entry.get(ADAPTED)
        if "c_crossattn" not in parts:
            return entry
        parts = dict(parts)
        if adapted is not None:
            own = entry.get("cross_attn")
            text = adapted.at(strengths, own)
            if text is not own:
                parts["c_crossattn"] = comfy.conds.CONDCrossAttn(text.to(parts["c_crossattn"].cond))
        held = () if adapted is None else adapted.strengths
        for schedule in self.schedules:
            if schedule.scoped:
                here = torch.full((1, 1, 1), float(schedule.key in held), device=device)
                parts[schedule.rows_key] = comfy.conds.CONDRegular(here)
        return {**entry, "model_conds": parts}

    def _tell_what_is_missing(self, conds: list) -> None:
        """Tell the user of people whose prompts other nodes have encoded past Apply's CLIP, or rebuilt."""
        held = {key for part in conds for entry in part or () if ADAPTED in entry for key in entry[ADAPTED].strengths}
        for schedule in self.schedules:
            if schedule.seen.named and not schedule.seen.encoded and schedule.strength != 0:
                schedule.tell(_PASSED_BY)
            elif schedule.seen.encoded and schedule.key not in held and (schedule.scoped or not schedule.always):
                schedule.tell(_UNMARKED)


@dataclass(frozen=True, eq=False)
class SideBranch:
    """K/V deltas beside the layers' own weights, for the rows of prompts that hold the person.

    ComfyUI hangs it into the model's layers while a MODEL with it is loaded; clones of the MODEL share it.

    Attributes:
        strength: factor on the deltas.
    """

    schedule: AdapterSchedule
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
        context, rows = _rows.get().context, _rows.get().here.get(self.schedule.key)
        if rows is None:
            return output
        change = inputs[0]
        if len(rows) != len(output) or not _same_text(change, context):
            self.schedule.tell(_UNSCOPED)
            return output
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


def patch_model(model, identity: Identity, schedule: AdapterSchedule, kv_strength: float):
    """A clone of MODEL with the person's schedule and K/V deltas.

    Raises:
        BaseModelError: a K/V delta has no layer in this MODEL.
    """
    model = model.clone()
    _add_schedule(model, schedule)
    if kv_strength != 0 and identity.kv:
        _require_layers(model, identity)
        if schedule.scoped:
            branch = SideBranch(schedule, identity.kv, kv_strength)
            model.set_injections(f"{schedule.key}_{len(model.injections)}", [branch.injection()])
        else:
            keys = comfy.lora.model_lora_keys_unet(model.model, {})
            model.add_patches(comfy.lora.load_lora(dict(identity.kv), keys, log_missing=False), kv_strength)
    return model


def _add_schedule(model, schedule: AdapterSchedule) -> None:
    """Put one wrapper for all people in place of the one that knew the others."""
    before = [wrapper.__self__ for wrapper in model.get_wrappers(WrappersMP.CALC_COND_BATCH, WRAPPER)]
    people = PeopleWrapper((*(one for wrapper in before for one in wrapper.schedules), schedule))
    wrappers = {WrappersMP.CALC_COND_BATCH: people.adapt}
    if any(one.scoped for one in people.schedules):
        wrappers[WrappersMP.DIFFUSION_MODEL] = people.mark_rows
    for kind, wrapper in wrappers.items():
        model.remove_wrappers_with_key(kind, WRAPPER)
        model.add_wrapper_with_key(kind, WRAPPER, wrapper)


def _same_text(one: Tensor, other: Tensor | None) -> bool:
    """Whether two text conditions are the same memory: other nodes may give a layer regions' texts of their own."""
    return other is not None and one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


def _require_layers(model, identity: Identity) -> None:
    """Each K/V delta has a layer of its shape; ComfyUI alone would leave the others out with a log line."""
    for layer in layers_of(identity.kv):
        shape, wanted = layer_shape(model.model, layer), shape_of(identity.kv, layer)
        if shape != wanted:
            raise BaseModelError(
                f"a MODEL with {layer} of shape {wanted}",
                "none" if shape is None else str(shape),
                f"{identity.trigger} was trained on {identity.base_checkpoint or 'another checkpoint'}: "
                "use that, or set kv_strength to 0.",
            )
