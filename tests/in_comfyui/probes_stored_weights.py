"""Models whose weights are not plain tensors in memory: scaled fp8, and those that newer ComfyUI streams.

Each function returns plain JSON values.
"""

from __future__ import annotations

import os
from functools import cache

import comfy.model_management
import comfy.model_patcher
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
    training_job,
    weights_hash,
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
    os.makedirs(folder, exist_ok=True)
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
            trainer = pack("idea_core").Trainer(backbone, photos(), face(), config, NAMES)

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


def scaled_fp8() -> dict:
    """A UNet of scaled fp8 weights, against one of the plain weights that it stands for."""
    scaled, plain = map(unet, unet_files())
    weight = scaled.get_model_object("diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k").weight
    result = trains_and_stays(scaled)
    return {
        **result,
        "stored": str(getattr(weight, "_qdata", weight).dtype),
        "plain losses": trained(plain)["losses"],
        "picture": error(result["picture"], pictures(plain, plain)[0]),
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


def fingerprint_of_stored() -> list[str]:
    """The fingerprints of trainings on scaled fp8 UNets: of one twice, with other numbers, and with another scale."""
    scaled, _ = unet_files()
    path = folder_paths.get_full_path("diffusion_models", scaled)
    names = [scaled, scaled]
    for end, change in ((".weight", lambda one: one.view(torch.uint8).flip(0).view(FP8)), (".scale_weight", torch.neg)):
        weights = load_file(path)
        key = next(key for key in weights if key.endswith(f"attn2.to_k{end}"))
        weights[key] = change(weights[key])
        names.append(f"tiny_other{end}.safetensors")
        save_file(weights, path.replace(scaled, names[-1]))
    job = training_job("ann", pack("idea_core").TrainConfig(steps=1))
    _, clip, vae = load("tiny_sd15")
    return [job.fingerprint(unet(name), clip, vae) for name in names]


class Streamed(comfy.model_patcher.ModelPatcher):
    """A patcher that says that it streams its weights, as those on GPUs do."""

    def is_dynamic(self):
        return True


def streamed(known: bool) -> dict:
    """A training on MODEL and CLIP whose patchers stream weights, with and without a way to load them again.

    On a processor nothing is streamed; what is looked at is that the training asks for weights that stay.
    """
    model, clip, vae = load("tiny_sd15")
    if getattr(model, "cached_patcher_init", None) is None:  # a ComfyUI that streams nothing
        return {}
    before, expected = weights_hash(model, clip.patcher), trained(model)
    copies = [part.clone() for part in (model, clip.patcher)]
    for part in copies:
        part.__class__ = Streamed
        part.cached_patcher_init = part.cached_patcher_init if known else None
    clip = clip.clone()
    clip.patcher = copies[1]
    try:
        with torch.inference_mode():
            backbone = pack("nodes.comfy.backbone").ComfyBackbone(copies[0], clip, vae, "fp32")
    except pack("idea_core").IdeaError as refused:
        return {"refused": str(refused)}
    static = not any(one.is_dynamic() for one in (backbone._patcher, backbone._text_patcher))
    apart = backbone._unet is not model.model.diffusion_model
    with torch.inference_mode(), backbone:
        config = pack("idea_core").TrainConfig(steps=3, batch_size=1)
        losses = list(pack("idea_core").Trainer(backbone, photos(), face(), config, NAMES).run())
    return {
        "losses": error(torch.tensor(losses), torch.tensor(expected["losses"])),
        "static": static,
        "apart": apart,
        "unchanged": before == weights_hash(model, load("tiny_sd15")[1].patcher),
    }
