"""A folder with all that the commands need: a tiny base model, face models, photos of drawn people."""

from __future__ import annotations

from pathlib import Path

import face_models
import torch
from PIL import Image
from tiny_pipeline import letter_tokenizer, tiny_pipeline
from transformers import CLIPConfig, CLIPModel

PEOPLE = {"alice": (205, 150, 110), "bob": (120, 80, 60), "carol": (235, 200, 180)}
PLACES = [(130, 110, 90), (190, 130, 120), (150, 120, 100)]


def build_studio(folder: Path) -> Path:
    tiny_pipeline().save_pretrained(folder / "model")
    face_models.write_face_pack(folder / "faces")
    for name, skin in PEOPLE.items():
        (folder / "photos" / name).mkdir(parents=True)
        for number, place in enumerate(PLACES):
            photo = face_models.photo(faces=[(*place, 0.0, skin)], seed=number)
            Image.fromarray(photo).save(folder / "photos" / name / f"{number}.png")
    Image.fromarray(face_models.photo(faces=[])).save(folder / "nobody.png")
    write_clip(folder / "clip")
    return folder


def write_clip(folder: Path) -> None:
    """A CLIP model of random weights."""
    torch.manual_seed(0)
    tokenizer = letter_tokenizer()
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = CLIPConfig(
        text_config={**sizes, **ends, "vocab_size": len(tokenizer), "max_position_embeddings": 77},
        vision_config={**sizes, "image_size": 32, "patch_size": 16},
        projection_dim=16,
    )
    CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
