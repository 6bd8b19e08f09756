"""The text encoder's first lesson: what the pictures of a caption have in them.

CLIP learns its captions from pictures before any UNet reads them.  So this one learns to tell, at the end of a
caption, how the person looks on average and what the scene is.  Without the lesson a UNet finds little to hold on to.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from miniature.training import half_precision

from .latents import LOOKS, Pictures
from .scenes import ASKED

BATCH = 128
RATE, TOKEN_RATE, WARM_UP = 1e-3, 3e-3, 50
SCENE_WEIGHT = 0.3


Reader = Callable[[nn.Module, Tensor], tuple[Tensor, Tensor | float]]
"""Text encoder and ids (B, L) → rows (B, k, d), the first of which tells the looks, the last the scene; a loss."""


def read_end(text_encoder, ids: Tensor) -> tuple[Tensor, float]:
    """CLIP's row (B, 1, d) at the first end token; what follows is padding, and causal."""
    last = (ids == text_encoder.config.eos_token_id).int().argmax(1)
    hidden = text_encoder(ids[:, : int(last.max()) + 1]).last_hidden_state
    return hidden.float()[torch.arange(len(ids)), last][:, None], 0.0


def teach_text(
    text_encoder, data: Pictures, steps: int, generator: torch.Generator, read: Reader = read_end
) -> tuple[float, float]:
    """Train the text encoder; mean squared error of looks that vary by 1, and share of right scenes, at the end."""
    looks = data.looks()
    head = nn.Linear(text_encoder.config.hidden_size, LOOKS + sum(map(len, ASKED.values())))
    embedding = text_encoder.get_input_embeddings().weight
    others = [parameter for parameter in text_encoder.parameters() if parameter is not embedding]
    groups = [{"params": [*others, *head.parameters()], "lr": RATE}, {"params": [embedding], "lr": TOKEN_RATE}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    for step in range(steps):
        for group, rate in zip(optimizer.param_groups, (RATE, TOKEN_RATE)):
            group["lr"] = rate * min(1.0, (step + 1) / WARM_UP) * (1 - 0.9 * step / steps)
        chosen = torch.randint(len(data.full), (BATCH,), generator=generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=half_precision()):
            rows, further = read(text_encoder, data.full[chosen])
        said = head(rows)
        scenes = said[:, -1, LOOKS:].split([len(choices) for choices in ASKED.values()], dim=1)
        look_loss = mse_loss(said[:, 0, :LOOKS], looks[data.people[chosen]])
        scene_loss = sum(cross_entropy(logits, data.scenes[chosen, k]) for k, logits in enumerate(scenes))
        optimizer.zero_grad(set_to_none=True)
        (look_loss + SCENE_WEIGHT * scene_loss + further).backward()
        optimizer.step()
    right = [(logits.argmax(1) == data.scenes[chosen, k]).float().mean() for k, logits in enumerate(scenes)]
    return look_loss.item(), float(sum(right) / len(right))
