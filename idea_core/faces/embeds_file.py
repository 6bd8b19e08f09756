"""A person's face embeddings on disk: one small safetensors file, without any picture."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from ..errors import IdentityFileError
from ..files.tensorfile import read_tensors, write_tensors
from ..method.enhancer import ARCFACE_WIDTH
from .embeds import IdEmbeds

FORMAT, FORMAT_VERSION = "id-ea-face", "1"
_FIX = "Choose a file that `idea encode` wrote, or encode the photos again."


def save_embeds(embeds: IdEmbeds, path: str | os.PathLike, photos: Sequence[str] = (), face_model: str = "") -> Path:
    """Write the embeddings; an existing file is replaced in one move.

    Args:
        photos: the photos' names, one an embedding, for people who read the file.
        face_model: the recogniser's name, likewise.
    """
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "photos": json.dumps(list(photos)),
        "face_model": face_model,
    }
    return write_tensors(path, {"embeds": embeds.embeds.cpu(), "scores": embeds.scores.cpu()}, metadata)


def load_embeds(path: str | os.PathLike) -> IdEmbeds:
    """Read and check the embeddings.

    Raises:
        IdentityFileError: another file, or a damaged one.
        FileNotFoundError: no such file.
    """
    name = Path(path).name
    tensors, _ = read_tensors(path, lambda metadata: _require_format(metadata, name))
    embeds, scores = tensors.get("embeds"), tensors.get("scores")
    shapes = [None if t is None else tuple(t.shape) for t in (embeds, scores)]
    count = shapes[0][0] if shapes[0] else 0
    if not count or shapes != [(count, ARCFACE_WIDTH), (count,)]:
        raise IdentityFileError(f"embeds (P, {ARCFACE_WIDTH}) and scores (P,) in {name}", str(shapes), _FIX)
    if not (torch.isfinite(embeds).all() and torch.isfinite(scores).all() and scores.sum() > 0):
        raise IdentityFileError(f"finite embeds and scores in {name}", "others", _FIX)
    return IdEmbeds(embeds.float(), scores.float())


def _require_format(metadata: Mapping[str, str], name: str) -> None:
    said = metadata.get("format"), metadata.get("format_version")
    if said != (FORMAT, FORMAT_VERSION):
        raise IdentityFileError(f"{name} of format {FORMAT} {FORMAT_VERSION}", " ".join(map(str, said)), _FIX)
