"""A ComfyUI base directory with tiny models, photos, and the pack."""

from __future__ import annotations

import subprocess
from pathlib import Path

import face_models
import numpy as np
import torch
from comfyui_place import PACK
from diffusers import AutoencoderKL
from graphs import PACK_NAME
from PIL import Image
from safetensors.torch import save_file

TINY_CHECKPOINTS = Path(__file__).with_name("tiny_checkpoints.py")


def write_base(base: Path, comfyui: Path, python: Path) -> None:
    """Tiny checkpoints, a VAE, tiny face models, photos, and the pack in custom_nodes."""
    (base / "custom_nodes").mkdir(parents=True)
    (base / "custom_nodes" / "id-ea").symlink_to(PACK)
    subprocess.run([python, TINY_CHECKPOINTS, base / "models" / "checkpoints"], cwd=comfyui, check=True)
    _write_vae(base / "models" / "vae" / "random_kl.safetensors")
    face_models.write_face_pack(base / "models" / "insightface" / "models" / PACK_NAME)
    (base / "input").mkdir()
    for name, photo in _photos().items():
        Image.fromarray(photo).save(base / "input" / f"{name}.png")


def _write_vae(path: Path) -> None:
    """Stable Diffusion's VAE at full size, since ComfyUI fixes it, with random weights."""
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    vae = AutoencoderKL(block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4, **blocks)
    path.parent.mkdir(parents=True)
    save_file(vae.state_dict(), path)


def _photos() -> dict[str, np.ndarray]:
    """Two photos of one drawn person, one of another one, and one of nobody."""
    person = face_models.photo(faces=[(130, 110, 90)])
    return {
        "example": person,  # of this name every ComfyUI has a picture
        "photo_1": person,
        "photo_2": face_models.photo(faces=[(190, 130, 120)], seed=1),
        "nobody": face_models.photo(faces=[]),
        "other": face_models.photo(faces=[(160, 120, 100, 0.0, (120, 90, 70), (200, 170, 90))], seed=2),
    }
