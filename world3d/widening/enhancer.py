"""A pretrained ID-Enhancer of the small base model as one of Stable Diffusion 1.x.

Text channels stand k times in a row, as in the widened text encoder. The face embedding and the token predictor's inner
layers stay as they are.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from idea_core.enhancers.model import EnhancerModel
from idea_core.enhancers.pretrained import PretrainedEnhancer
from idea_core.families import BASE_MODELS

FAMILY = "sd1"
_ROWS = ("anchor", "start", "scale")  # text vectors, not layers that read them


def widen_enhancer(small: PretrainedEnhancer, checkpoint: str, digest: str) -> PretrainedEnhancer:
    """The ID-Enhancer for the widened checkpoint.

    Args:
        checkpoint, digest: file name and SHA-256 of the checkpoint.
    """
    ref = replace(small.base_ref, base_model=FAMILY, base_checkpoint=checkpoint, base_hash=digest)
    weights = {key: tensor.half() for key, tensor in widened_weights(small.build()).items()}
    return replace(small, base_ref=ref, weights=weights)


@torch.no_grad()
def widened_weights(small: EnhancerModel) -> dict[str, Tensor]:
    """The state of a model of Stable Diffusion 1.x's width that computes the same, each text channel k times."""
    tokens, heads, beta = small.num_tokens, small.adapter.attention.num_heads, small.adapter.beta
    parts = {encoder: torch.zeros(tokens, width) for encoder, width in BASE_MODELS[FAMILY].encoders.items()}
    with torch.device("meta"):
        shapes = {
            key: tensor.shape for key, tensor in EnhancerModel(parts, parts, parts, heads, beta).state_dict().items()
        }
    factor = BASE_MODELS[FAMILY].width // sum(small.widths.values())
    wide = {key: _repeated(tensor, shapes[key], key not in _ROWS) for key, tensor in small.state_dict().items()}
    for module in ("enhancer", "adapter"):  # products k times as large, a divisor √k times
        for kind in ("weight", "bias"):
            query = wide[f"{module}.attention.in_proj_{kind}"]
            query[: len(query) // 3] *= factor**-0.5
    return wide


def _repeated(source: Tensor, shape: torch.Size, reads: bool) -> Tensor:
    """A tensor whose channels stand k times in a row; what reads repeated channels is divided by k."""
    wide = source.clone()
    for dim, (ours, theirs) in enumerate(zip(source.shape, shape)):
        wide = wide.repeat_interleave(theirs // ours, dim)
    return wide / (shape[1] // source.shape[1]) if reads and source.ndim == 2 else wide
