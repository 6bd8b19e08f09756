"""Trainings on models whose weights are not plain tensors in memory, and pictures of them before and after."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import comfy.model_management
import folder_paths
import torch
from probes import (
    NAMES,
    apply,
    encode,
    error,
    face,
    load,
    make_identity,
    pack,
    photos,
    sample,
)
from safetensors.torch import load_file, save_file

import nodes

FP8 = torch.float8_e4m3fn


@cache
def unet_files() -> tuple[str, str]:
    """A UNet with scaled fp8 weights in its attentions, and one of the plain weights that those stand for."""
    checkpoint = load_file(folder_paths.get_full_path("checkpoints", "tiny_sd15.safetensors"))
    prefix = "model.diffusion_model."
    plain = {key.removeprefix(prefix): value for key, value in checkpoint.items() if key.startswith(prefix)}
    scaled, linear = {"scaled_fp8": torch.zeros(0, dtype=FP8)}, ("to_q.weight", "to_k.weight", "to_v.weight")
    for key, weight in plain.items():
        scaled[key] = weight
        if key.endswith(linear):
            scale = weight.float().abs().max() / torch.finfo(FP8).max
            scaled[key] = (weight.float() / scale).to(FP8)
            scaled[key.replace(".weight", ".scale_weight")] = scale
            plain[key] = (scaled[key].float() * scale).half()
    folder = folder_paths.get_folder_paths("diffusion_models")[0]
    Path(folder).mkdir(parents=True, exist_ok=True)
    names = "tiny_scaled_fp8.safetensors", "tiny_plain.safetensors"
    for name, weights in zip(names, (scaled, plain)):
        save_file(weights, f"{folder}/{name}")
    return names


def unet(name: str):
    with torch.inference_mode():
        return nodes.UNETLoader().load_unet(name, "default")[0]


def trained(model, steps: int = 3, stop_at: int | None = None) -> dict:
    """Losses of a training on a MODEL, and the largest value in what it learnt of keys and values."""
    _, clip, vae = load("tiny_sd15")
    config = pack("idea_core").TrainConfig(steps=steps, batch_size=1)
    try:
        with torch.inference_mode(), pack("nodes.comfy.backbone").ComfyBackbone(model, clip, vae, "fp32") as backbone:
            trainer = pack("idea_core").Trainer.of(backbone, photos(), face(), config, NAMES)

            def on_step(step, *_):
                if step == stop_at:
                    raise comfy.model_management.InterruptProcessingException

            losses = list(trainer.run(on_step))
            kv = trainer.person.kv.state_dict()
    except comfy.model_management.InterruptProcessingException:
        return {"stopped": True}
    return {"losses": losses, "kv": min(value.abs().max().item() for key, value in kv.items() if "up" in key)}


def pictures(model, person_model) -> tuple[torch.Tensor, torch.Tensor]:
    """The base alone, and a person who was applied before."""
    _, clip, _ = load("tiny_sd15")
    person_clip = apply("tiny_sd15", make_identity("tiny_sd15"))[1]
    with torch.inference_mode():
        negative = encode(clip, "blurry")
        alone = sample(model, encode(clip, "a photo of a dog"), negative, steps=2)
        return alone, sample(person_model, encode(person_clip, "photo of <ann>"), negative, steps=2)


def trains_and_stays(model) -> dict:
    """Trainings on a MODEL to the end, cancelled and failed, with pictures of it and of its person before and after."""
    clip, ann = load("tiny_sd15")[1], make_identity("tiny_sd15")
    with torch.inference_mode():
        person = apply("tiny_sd15", ann, kv_strength=1.0, on=(model, clip))[0]
        without = apply("tiny_sd15", ann, kv_strength=0.0, on=(model, clip))[0]
    before = pictures(model, person)
    runs = {"whole": trained(model), "stopped": trained(model, stop_at=2)}
    step = pack("idea_core").Trainer.step
    try:
        pack("idea_core").Trainer.step = lambda *_: 1 / 0
        trained(model)
    except ZeroDivisionError:
        runs["failed"] = {}
    finally:
        pack("idea_core").Trainer.step = step
    again = trained(model)
    after = pictures(model, person)
    return {
        "losses": runs["whole"]["losses"],
        "again": again["losses"],
        "runs": sorted(runs),
        "kv": runs["whole"]["kv"],
        "changed pictures": max(error(*pair) for pair in zip(before, after)),
        "applied": error(before[1], pictures(model, without)[1]),
        "picture": before[0],
    }


def as_started() -> dict:
    """The same on the checkpoint as ComfyUI's options have it loaded, and where that is."""
    model = load("tiny_sd15")[0]
    result = trains_and_stays(model)
    weight = model.get_model_object("diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k").weight
    device = comfy.model_management.get_torch_device()
    on_gpu = device.type == "cuda"
    return {
        **result,
        "picture": result["picture"].flatten().tolist(),
        "device": torch.cuda.get_device_name(device) if on_gpu else str(device),
        "streamed": bool(getattr(model, "is_dynamic", bool)()),
        "stored": str(weight.dtype),
        "peak": torch.cuda.max_memory_allocated(device) if on_gpu else 0,
    }
