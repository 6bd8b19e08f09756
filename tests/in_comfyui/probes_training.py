"""Trainings that the tests of parity hold to those of the other front end."""

from __future__ import annotations

import torch
from probes import face, load, pack, photos, weights_hash
from safetensors.torch import save_file

import nodes


def train_for_parity(checkpoint: str, vae: str, settings: dict, target: str, names: list[str]) -> list[float]:
    """A training with a given VAE; its losses, and what it trained in a file, for a check elsewhere.

    To its face models each picture is one face: tiny checkpoints draw none.
    """
    model, clip, _ = load(checkpoint)
    with torch.inference_mode():
        vae = nodes.VAELoader().load_vae(vae)[0]
    before = weights_hash(model, clip.patcher, vae.patcher)
    config = pack("idea_core").TrainConfig(**settings)
    engine = nodes.NODE_CLASS_MAPPINGS["IDEA_LoadFaceModel"].execute("testpack", "cpu").args[0].engine()
    engine.detect = lambda photo: [pack("idea_core.faces").Face.aligned(len(photo))]
    try:
        with torch.inference_mode(), pack("nodes.comfy.backbone").ComfyBackbone(model, clip, vae) as backbone:
            likeness = pack("idea_core.training.likeness_loss").LikenessLoss.of(backbone, engine, config)
            trainer = pack("idea_core").Trainer(backbone, photos(), face(), config, names, likeness=likeness)
            losses = trainer.run()
            trained = trainer.person.state_dict() | trainer.person.kv.state_dict()
    finally:
        del engine.detect
    assert weights_hash(model, clip.patcher, vae.patcher) == before
    save_file({key: tensor.clone() for key, tensor in trained.items()}, target)
    return list(losses)
