"""A person's face embeddings on disk: one small safetensors file, without any picture."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from ..errors import IdentityFileError
from ..files.format import FileFormat
from ..files.tensorfile import write_tensors
from ..method.modules import ARCFACE_WIDTH
from .embeds import IdEmbeds

_FIX = "Choose a file that `idea encode` wrote, or encode the photos again."
FORMAT = FileFormat("id-ea-face", "1", _FIX)


def save_embeds(embeds: IdEmbeds, path: str | os.PathLike, photos: Sequence[str] = (), face_model: str = "") -> Path:
    """Write the embeddings; an existing file is replaced in one move.

    Args:
        photos: the photos' names, one an embedding, for people who read the file.
        face_model: the recogniser's name, likewise.
    """
    metadata = FORMAT.metadata({"photos": json.dumps(list(photos)), "face_model": face_model})
    return write_tensors(path, {"embeds": embeds.embeds.cpu(), "scores": embeds.scores.cpu()}, metadata)


def load_embeds(path: str | os.PathLike) -> IdEmbeds:
    """Read and check the embeddings.

    Raises:
        IdentityFileError: another file, or a damaged one.
        FileNotFoundError: no such file.
    """
    with FORMAT.reading(path) as (tensors, _):
        embeds, scores = tensors["embeds"], tensors["scores"]
        shapes, count = [tuple(embeds.shape), tuple(scores.shape)], scores.numel()
        if not count or shapes != [(count, ARCFACE_WIDTH), (count,)]:
            raise IdentityFileError(f"embeds (P, {ARCFACE_WIDTH}) and scores (P,)", str(shapes), _FIX)
        if not (torch.isfinite(embeds).all() and torch.isfinite(scores).all() and scores.sum() > 0):
            raise IdentityFileError("finite embeds and scores", "others", _FIX)
        return IdEmbeds(embeds.float(), scores.float())
