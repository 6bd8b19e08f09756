"""Content hash of a training's inputs, so that the same inputs are never trained twice."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from torch import Tensor

from ...idea_core.files.digest import Digest
from .autograd import is_quantised
from .models import family_of, layer_of

UNUSED = ("logit_scale", "text_projection.weight")
"""Text encoder weights without effect on the text condition. SD 1.x checkpoints lack them, and ComfyUI leaves them
uninitialised."""
SAMPLES = 1024  # values read of each weight: any fine-tune, merge or LoRA changes nearly all of them


def training_fingerprint(model, clip, vae, tensors: Iterable[Tensor], settings: Mapping) -> str:
    """SHA-256, hexadecimal, of everything that a training's result depends on.

    Args:
        model, clip, vae: base weights are sampled; weight patches (LoRAs) enter with their strengths.
        tensors: photos and face embedding, read whole.
        settings: JSON values.
    """
    digest = Digest().add_json(settings)
    for tensor in tensors:
        digest.add_tensor(tensor)
    for patcher in (model, clip.patcher, vae.patcher):
        _add_patcher(digest, patcher)
    digest.add_text(repr(layer_of(clip, family_of(model))))
    if getattr(clip, "tokenizer_options", None):
        digest.add_json(clip.tokenizer_options)
    sampling = model.get_model_object("model_sampling")
    digest.add_text(repr(type(sampling).__bases__)).add_tensor(sampling.sigmas)
    return digest.hex()


def _add_patcher(digest: Digest, patcher) -> None:
    model = patcher.model
    for key, weight in sorted([*model.named_parameters(), *model.named_buffers()], key=lambda item: item[0]):
        if key.endswith(UNUSED):
            continue
        if key in patcher.backup:  # a LoRA is merged in: the base weight counts
            weight = patcher.backup[key].weight
        for part in _stored(weight):
            digest.add_text(f"{key} {tuple(part.shape)}")
            if not part.is_meta:
                digest.add_tensor(_sample(part))
    if getattr(patcher, "injections", None):
        digest.add(os.urandom(16))  # their effect is unknown, so the training is never reused
    for key, patches in sorted(patcher.patches.items()):
        for strength, patch, *others in patches:
            digest.add_text(f"{key} {strength} {others[0]}")
            _add_nested(digest, getattr(patch, "weights", patch))


def _add_nested(digest: Digest, value) -> None:
    """Tensors and plain values in ComfyUI's nested patches."""
    if isinstance(value, Tensor):
        digest.add_tensor(_sample(value))
    elif isinstance(value, (tuple, list)):
        for part in value:
            _add_nested(digest, part)
    else:
        digest.add_text(repr(value))


def _stored(weight) -> list[Tensor]:
    """A weight as it is stored; of a quantised one the quantised values and their scales."""
    parts = [weight]
    if is_quantised(weight):
        parts = [weight._qdata, *(part for part in vars(weight._params).values() if isinstance(part, Tensor))]
    return [part.detach().as_subclass(Tensor) for part in parts]


def _sample(tensor: Tensor) -> Tensor:
    flat = tensor.detach().reshape(-1)
    return flat[:: max(1, flat.numel() // SAMPLES)]
