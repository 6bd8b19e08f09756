"""What the tests of parity hold to the other front end, which cannot run in this process."""

from __future__ import annotations

import torch
from comfy.patcher_extension import WrappersMP
from probes import apply, encode, face, load, make_identity, pack, photos, sample, weights_hash
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
            trainer = pack("idea_core").Trainer.of(backbone, photos(), face(), config, names, engine=engine)
            losses = trainer.run()
            trained = trainer.person.state_dict() | trainer.person.kv.state_dict()
    finally:
        del engine.detect
    assert weights_hash(model, clip.patcher, vae.patcher) == before
    save_file({key: tensor.clone() for key, tensor in trained.items()}, target)
    return list(losses)


@torch.inference_mode()
def unet_call(checkpoint: str, prompt: str, target: str, strength: float, kv_strength: float) -> None:
    """One real sampling step with everything applied; what the UNet was given and gave, for a check elsewhere."""
    identity = make_identity(checkpoint)
    model, clip = apply(checkpoint, identity, strength, kv_strength)
    seen = {}

    def record(executor, x, timesteps, context=None, *rest, **more):
        output = executor(x, timesteps, context, *rest, **more)
        seen.update(x=x, timesteps=timesteps, context=context, output=output)
        return output

    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test", record)
    sample(model, encode(clip, prompt), [], steps=1, cfg=1.0)
    save_file({key: tensor.float().clone().contiguous() for key, tensor in seen.items()}, f"{target}/call.safetensors")
    identity.save(f"{target}/identity.safetensors")


def weights_in(prompts: list[str]) -> list:
    """ComfyUI's own reading of prompts: texts and their weights."""
    return [pack("nodes.comfy.names")._segments(prompt) for prompt in prompts]
