"""What Apply ID-Adapter adds to MODEL: the adapter's strength and schedule, and the K/V deltas.

Apply's CLIP gives adapted text conditions. If this MODEL has another strength or schedule, it computes them again at
each step, before UNet and ControlNets. The conditioning carries what that needs (`AdaptedText`).

K/V deltas are weight patches, which act on every prompt at no cost. Or they are a side branch of the layers, which acts
only on the batch rows of prompts with the person.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeGuard

import comfy.conds
import comfy.lora
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor
from torch.nn.functional import pad

from ...idea_core.errors import BaseModelError
from ...idea_core.identity.identity import Identity
from ...idea_core.method.kv import FusedKV, layers_of, shape_of
from .kept_changes import Samplings
from .models import fused_layers, layer_shape
from .names import Seen
from .scoped_kv import FusedBranch, SideBranch, rows_before_text, rows_marked, watched
from .text import ADAPTED, AdaptedText

WRAPPER = "id-ea"
_UNMARKED = (
    "No prompt of this sampling is marked as holding {}. If one has the name, another node has rebuilt it. "
    "start_percent, end_percent and kv_scope 'prompts with the person' do not act on it."
)
_MIXED = (
    "Another node has mixed the prompt of {}. Its text keeps the strength of the Apply ID-Adapter whose CLIP encoded "
    "it. Another strength, start_percent and end_percent do not act on it."
)
_NO_LAYERS = (
    "The change to keys and values of {} does not act: this MODEL has no such layers. The name and the adapter act."
)
_OTHER_ROWS = (
    "The change to keys and values of {} does not act: another node has changed the text inside the MODEL. The name "
    "and the adapter act."
)
_PASSED_BY = (
    "The adapter of {} does not act: a node encoded the prompt past Apply's CLIP. The name's word and kv_strength act. "
    "For the adapter too, encode with CLIP Text Encode."
)


@dataclass(frozen=True)
class AdapterSchedule:
    """Strength of a person's adapter, and the part of the sampling in which it acts.

    Attributes:
        key: of the person's difference in `AdaptedText`.
        start_percent, end_percent: 0 is the first step, 1 the last.
        scope: where K/V deltas act: "prompt" for all of a person's prompts, or "person" or "text" of `KV_SCOPES`; ""
            for everywhere.
        node_id: of the Apply node, which shows notices.
    """

    key: str
    trigger: str
    strength: float
    start_percent: float = 0.0
    end_percent: float = 1.0
    scope: str = ""
    seen: Seen = field(default_factory=Seen, compare=False)
    node_id: str | None = None

    @property
    def rows_key(self) -> str:
        """Key of the condition that marks prompts with the person."""
        return f"{self.key}_here"

    @property
    def always(self) -> bool:
        return self.start_percent <= 0 and self.end_percent >= 1

    def here(self, adapted: AdaptedText | None, own: Tensor | None, text: Tensor) -> Tensor:
        """Where K/V deltas act in a prompt: (1, 1, 1), or (1, L, 1) at the text's tokens.

        Args:
            own: the conditioning's text, which other nodes may have lengthened or zeroed out.
            text: (1, L, d), the same as the network is given it: MODELs may pad it on the left.
        """
        zeroed = own is not None and not own.any()
        held = adapted is not None and self.key in adapted.strengths and not zeroed
        if self.scope == "prompt":
            return torch.full((1, 1, 1), float(held))
        marks = torch.zeros(1, text.shape[1], 1)
        if adapted is None or own is None or self.key not in adapted.places or zeroed:
            return marks
        first, places = text.shape[1] - own.shape[1], adapted.places[self.key]
        marks[:, first : first + places.shape[1]] = places if self.scope == "person" else 1.0
        return marks

    def strength_at(self, sampling, sigma: float) -> float:
        """The adapter's strength at a noise level."""
        first, last = sampling.percent_to_sigma(self.start_percent), sampling.percent_to_sigma(self.end_percent)
        return self.strength if last <= sigma <= first else 0.0

    def tell(self, notice: str) -> None:
        self.seen.tell(notice.format(self.trigger), self.node_id)


@dataclass(frozen=True)
class PeopleWrapper:
    """ComfyUI's wrappers for all people of a MODEL."""

    schedules: tuple[AdapterSchedule, ...]
    _samplings: Samplings = field(default_factory=Samplings, compare=False)

    def __deepcopy__(self, _memo) -> PeopleWrapper:
        return self  # MODEL clones share it

    def adapt(self, executor, model, conds: list, x, sigmas: Tensor, model_options: dict):
        """Wrapper of ComfyUI's `calc_cond_batch`: text conditions at the strengths of this step."""
        strengths = self._strengths(model.model_sampling, sigmas)
        adapted = [part and [self._adapted(entry, strengths, x.device) for entry in part] for part in conds]
        self._tell_what_is_missing(conds)
        with self._samplings.going_on(conds):
            return executor(model, adapted, x, sigmas, model_options)

    def mark_rows(self, executor, x, timesteps, context=None, *rest, **more):
        """Wrapper of the UNet: marks the batch rows with the person for the side branches."""
        keys = {schedule.key: schedule.rows_key for schedule in self.schedules}
        here = {key: more.pop(rows_key) for key, rows_key in keys.items() if rows_key in more}
        first = rows_before_text(executor.class_obj, more.get("ref_latents") or (), more.get("ref_contexts") or ())

        def watching(given):  # transformer options are among the arguments, by name or by place
            return watched(given, lambda: self._tell_lost(here)) if _is_options(given) else given

        with rows_marked(context, here, first):
            more = {name: watching(given) for name, given in more.items()}
            return executor(x, timesteps, context, *map(watching, rest), **more)

    def _tell_lost(self, here: Mapping[str, Tensor]) -> None:
        for schedule in self.schedules:
            if schedule.key in here and here[schedule.key].shape[1] > 1 and here[schedule.key].any():
                schedule.tell(_OTHER_ROWS)

    def _strengths(self, sampling, sigmas: Tensor) -> dict[str, float]:
        """Key of a person → strength at this step; the sum for a person who was applied twice."""
        strengths: dict[str, float] = defaultdict(float)
        always = all(schedule.always for schedule in self.schedules)
        sigma = None if always else float(sigmas[0])  # reading it waits for the device
        for schedule in self.schedules:
            strengths[schedule.key] += schedule.strength if sigma is None else schedule.strength_at(sampling, sigma)
        return dict(strengths)

    def _adapted(self, entry: dict, strengths: Mapping[str, float], device: torch.device) -> dict:
        """One prompt's conditioning in ComfyUI's sampling, at other strengths."""
        parts, adapted = entry.get("model_conds", {}), entry.get(ADAPTED)
        if "c_crossattn" not in parts:
            return entry
        parts = dict(parts)
        if adapted is not None:
            own = entry.get("cross_attn")
            text = adapted.at(strengths, own)
            if text is None:
                for schedule in self.schedules:
                    if schedule.key in adapted.strengths:
                        schedule.tell(_MIXED)
            elif text is not own:
                # Of the same class: the text of cross attention may be repeated to another's length, others may not.
                cond = parts["c_crossattn"]
                parts["c_crossattn"] = cond._copy_with(_padded(text.to(cond.cond), cond.cond.shape[1]))
        for schedule in self.schedules:
            if schedule.scope:
                here = schedule.here(adapted, entry.get("cross_attn"), parts["c_crossattn"].cond)
                parts[schedule.rows_key] = comfy.conds.CONDRegular(here.to(device))
        return {**entry, "model_conds": parts}

    def _tell_what_is_missing(self, conds: list) -> None:
        """Tell the user if other nodes encoded a person's prompt without Apply's CLIP, or rebuilt it."""
        if len(conds) < 2 or conds[0] is None:  # another node samples with the negative prompt alone
            return
        held = {key for part in conds for entry in part or () if ADAPTED in entry for key in entry[ADAPTED].strengths}
        for schedule in self.schedules:
            if schedule.seen.named and not schedule.seen.encoded and schedule.strength != 0:
                schedule.tell(_PASSED_BY)
            elif schedule.seen.encoded and schedule.key not in held and (schedule.scope or not schedule.always):
                schedule.tell(_UNMARKED)


def patch_model(model, identity: Identity, schedule: AdapterSchedule, kv_strength: float):
    """A clone of MODEL with the person's schedule and K/V deltas.

    Raises:
        BaseModelError: a K/V delta has no layer in this MODEL of cross attention.
    """
    model, fused = model.clone(), None
    acts = kv_strength != 0 and bool(identity.kv)
    if acts and identity.base.transformer is None:
        _require_layers(model, identity)
    elif acts:
        fused = fused_layers(model.model.diffusion_model, identity.base)
        if not _all_there(identity, fused, model.model.diffusion_model):
            schedule.tell(_NO_LAYERS)
            acts, schedule = False, replace(schedule, scope="")
    _add_schedule(model, schedule)
    if acts:
        if schedule.scope:
            branch = (
                SideBranch(schedule.key, schedule.tell, identity.kv, kv_strength)
                if fused is None
                else FusedBranch(schedule.key, schedule.tell, identity.kv, kv_strength, layers=fused)
            )
            model.set_injections(f"{schedule.key}_{len(model.injections)}", [branch.injection()])
        else:
            keys = comfy.lora.model_lora_keys_unet(model.model, {})
            model.add_patches(comfy.lora.load_lora(dict(identity.kv), keys, log_missing=False), kv_strength)
    return model


def _add_schedule(model, schedule: AdapterSchedule) -> None:
    """Replace the wrapper of the people so far by one for all people."""
    before = [wrapper.__self__ for wrapper in model.get_wrappers(WrappersMP.CALC_COND_BATCH, WRAPPER)]
    people = PeopleWrapper((*(one for wrapper in before for one in wrapper.schedules), schedule))
    wrappers: dict[str, Callable] = {WrappersMP.CALC_COND_BATCH: people.adapt}
    if any(one.scope for one in people.schedules):
        wrappers[WrappersMP.DIFFUSION_MODEL] = people.mark_rows
    for kind, wrapper in wrappers.items():
        model.remove_wrappers_with_key(kind, WRAPPER)
        model.add_wrapper_with_key(kind, WRAPPER, wrapper)


def _is_options(given: object) -> TypeGuard[dict]:
    return isinstance(given, dict) and "patches" in given


def _padded(text: Tensor, length: int) -> Tensor:
    """A text condition with zeros before it, up to a length."""
    return pad(text, (0, 0, length - text.shape[1], 0)) if text.shape[1] < length else text


def _all_there(identity: Identity, fused: Mapping[str, FusedKV], network: torch.nn.Module) -> bool:
    """Whether a transformer has each layer of a person's K/V deltas; quantised ones of other packs may have none."""
    widths = {name: network.get_submodule(layer).in_features for layer, kv in fused.items() for name in kv[:2]}
    return all(shape_of(identity.kv, name) == (widths.get(name),) * 2 for name in layers_of(identity.kv))


def _require_layers(model, identity: Identity) -> None:
    """Each K/V delta needs a layer of its shape; ComfyUI would skip others with a log line."""
    for layer in layers_of(identity.kv):
        shape, wanted = layer_shape(model.model, layer), shape_of(identity.kv, layer)
        if shape != wanted:
            raise BaseModelError(
                f"a MODEL with {layer} of shape {wanted}",
                "none" if shape is None else str(shape),
                f"{identity.trigger} was trained on {identity.base_checkpoint or 'another checkpoint'}: "
                "use that, or set kv_strength to 0.",
            )
