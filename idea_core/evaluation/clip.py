"""Prompt similarity by a CLIP model on disk (arXiv 2103.00020)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import BaseModelError

# Defaults of OpenAI's CLIP models, if the folder has no preprocessor_config.json.
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)

_REMEDY = "Give the folder of one, such as clip-vit-base."
_FILES = (
    ("config.json",),
    ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"),
    ("tokenizer.json", "vocab.json"),
)


class ClipScorer:
    """Similarity of images and texts.

    Args:
        folder: a CLIP model in transformers' format, with its tokenizer.

    Raises:
        BaseModelError: no such model.
    """

    def __init__(self, folder: Path, device: torch.device | str = "cpu"):
        from transformers import CLIPModel, CLIPTokenizer

        if missing := _missing(folder):
            raise BaseModelError(f"a CLIP model with its tokenizer in {folder}", f"no {missing}", _REMEDY)
        try:
            self._model = CLIPModel.from_pretrained(folder, local_files_only=True).eval().to(device)
            self._tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as error:
            reason = f"files that cannot be read ({str(error).splitlines()[0]})"
            raise BaseModelError(f"a CLIP model with its tokenizer in {folder}", reason, _REMEDY) from None
        self._device = device
        settings = folder / "preprocessor_config.json"
        preprocessing = json.loads(settings.read_text("utf-8")) if settings.is_file() else {}
        self._mean, self._std = preprocessing.get("image_mean", _MEAN), preprocessing.get("image_std", _STD)

    @torch.no_grad()
    def score(self, image: np.ndarray, text: str) -> float:
        """Cosine of an image (H, W, 3), uint8, and a text, truncated to the model's length."""
        length = self._model.config.text_config.max_position_embeddings
        ids = self._tokenizer(text, truncation=True, max_length=length, return_tensors="pt").input_ids
        output = self._model(input_ids=ids.to(self._device), pixel_values=self._pixels(image).to(self._device))
        return float(torch.nn.functional.cosine_similarity(output.text_embeds, output.image_embeds)[0])

    def _pixels(self, image: np.ndarray) -> Tensor:
        """(1, 3, S, S): the shorter side scaled to the model's, cropped to the centre, normalised."""
        size = self._model.config.vision_config.image_size
        scale = size / min(image.shape[:2])
        height, width = (max(size, round(side * scale)) for side in image.shape[:2])
        left, top = (width - size) // 2, (height - size) // 2
        scaled = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
        crop = scaled.crop((left, top, left + size, top + size))
        pixels = (np.asarray(crop, dtype=np.float32) / 255 - self._mean) / self._std
        return torch.from_numpy(pixels).float().permute(2, 0, 1)[None]


def _missing(folder: Path) -> str:
    """What a CLIP model's folder lacks; "" if nothing. transformers would look for it on the network."""
    if not folder.is_dir():
        return "such folder"
    return next((names[0] for names in _FILES if not any((folder / name).is_file() for name in names)), "")
