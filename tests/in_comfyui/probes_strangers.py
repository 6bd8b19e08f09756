"""Apply and training beside other people's node packs, as they are. Each function returns plain JSON values."""

from __future__ import annotations

import asyncio
import os
import sys

import folder_paths
import torch
from probes import apply, encode, error, load, make_identity, notices, pack, sample
from probes_stored_weights import pictures, trained

import nodes

PERSON, NEGATIVE = "photo of <ann> smiling", "blurry"


def load_stranger(folder: str) -> list[str]:
    """Load a node pack as ComfyUI does, in a process that looks like a server to it; its nodes' ids."""
    os.environ.pop("PYTEST_CURRENT_TEST", None)  # with which one of them leaves its nodes out
    import server

    if not hasattr(server.PromptServer, "instance"):
        server.PromptServer(asyncio.new_event_loop())
    before = set(nodes.NODE_CLASS_MAPPINGS)
    asyncio.run(nodes.load_custom_node(folder, module_parent="custom_nodes"))
    return sorted(set(nodes.NODE_CLASS_MAPPINGS) - before)


def run(node_id: str, **inputs):
    """First output of a node of any kind."""
    node = nodes.NODE_CLASS_MAPPINGS[node_id]
    if hasattr(node, "define_schema"):
        return node.execute(**inputs).args[0]
    return getattr(node(), node.FUNCTION)(**inputs)[0]


@torch.inference_mode()
def encoded_by(node_id: str, checkpoint: str = "tiny_sd15", text: str = PERSON, **inputs) -> dict:
    """Pictures from a pack's own prompt node, by the adapter's strength and against stock prompts, and what is said."""
    ann, plain = make_identity(checkpoint), load(checkpoint)

    def picture(strength: float | None, name: str = "<ann>", start: float = 0.0) -> torch.Tensor:
        on = plain[:2] if strength is None else apply(checkpoint, ann, strength, start=start)
        positive = run(node_id, clip=on[1], text=text.replace("<ann>", name), **inputs)
        return sample(on[0], positive, encode(plain[1], NEGATIVE), steps=2)

    strong = picture(1.0)
    return {
        "adapter": error(strong, picture(-2.0)),
        "without the name": error(picture(1.0, "a dog"), picture(None, "a dog")),
        "against a stock prompt": error(strong, sample(*_stock(checkpoint, ann, text, 1.0), steps=2)),
        "against the name alone": error(strong, sample(*_stock(checkpoint, ann, text, 1e-9), steps=2)),
        "said": notices(lambda: picture(1.0, start=0.3)),
    }


def _stock(checkpoint: str, person, text: str, strength: float) -> tuple:
    model, clip = apply(checkpoint, person, strength)
    return model, encode(clip, text), encode(load(checkpoint)[1], NEGATIVE)


@torch.inference_mode()
def regions_by_attention() -> dict:
    """Two people in two regions whose cross attention a pack computes itself."""
    ann, bob = make_identity("tiny_sd15"), make_identity("tiny_sd15", seed=9, name="bob")
    left = torch.zeros(1, 64, 64)
    left[:, :, :32] = 1

    def picture(strength: float = 1.0, **options) -> torch.Tensor:
        on = apply("tiny_sd15", bob, on=apply("tiny_sd15", ann, strength, **options))
        first, second = encode(on[1], "photo of <ann>"), encode(on[1], "photo of <bob>")
        model = run("AttentionCouplePPM", model=on[0], base_cond=first, base_mask=left, cond_1=second, mask_1=1 - left)
        return sample(model, first, encode(on[1], NEGATIVE), steps=1)

    said = notices(lambda: picture(kv_strength=1.0, kv_scope="prompts with the person"))
    return {"adapter": error(picture(), picture(-2.0)), "kv": error(picture(kv_strength=1.0), picture()), "said": said}


def gguf(folder: str) -> dict:
    """A UNet of GGUF weights: applied, trained, and as it was after that; against the weights that it stands for."""
    import gguf as writer  # that pack's own requirement
    from safetensors.torch import load_file, save_file

    checkpoint = load_file(folder_paths.get_full_path("checkpoints", "tiny_sd15.safetensors"))
    prefix, kind = "model.diffusion_model.", writer.GGMLQuantizationType.Q8_0
    place = folder_paths.get_folder_paths("diffusion_models")[0]
    os.makedirs(place, exist_ok=True)
    plain = {key.removeprefix(prefix): value for key, value in checkpoint.items() if key.startswith(prefix)}
    for number, change in enumerate((1.0, 1.01)):
        file = writer.GGUFWriter(f"{place}/tiny_{number}.gguf", "sd1")
        for key, value in plain.items():
            array = value.float().numpy() * change
            if array.ndim == 2 and array.shape[1] % 32 == 0:
                stored = writer.quants.quantize(array, kind)
                file.add_tensor(key, stored, raw_dtype=kind)
                if not number:
                    plain[key] = torch.from_numpy(writer.quants.dequantize(stored, kind)).to(value.dtype)
            else:
                file.add_tensor(key, array)
        file.write_header_to_file()
        file.write_kv_data_to_file()
        file.write_tensors_to_file()
        file.close()
    save_file(plain, f"{place}/tiny_gguf_plain.safetensors")
    with torch.inference_mode():
        models = [run("UnetLoaderGGUF", unet_name=f"tiny_{number}.gguf") for number in range(2)]
        same = nodes.UNETLoader().load_unet("tiny_gguf_plain.safetensors", "default")[0]
        clip, ann = load("tiny_sd15")[1], make_identity("tiny_sd15")
        person = apply("tiny_sd15", ann, kv_strength=1.0, on=(models[0], clip))[0]
        without = apply("tiny_sd15", ann, on=(models[0], clip))[0]
        ann.save(f"{folder}/ann.safetensors")
        folder_paths.add_model_folder_path("loras", folder)
        lora = nodes.LoraLoader().load_lora(models[0], clip, "ann.safetensors", 1.0, 0.0)[0]
    before = pictures(models[0], person)
    learnt = trained(models[0])
    after = pictures(models[0], person)
    config = pack("idea_core").TrainConfig(steps=1)
    job = sys.modules["probes"].training_job("ann", config)
    prints = [job.fingerprint(model, clip, load("tiny_sd15")[2]) for model in (*models, models[0])]
    return {
        "kv": error(before[1], pictures(models[0], without)[1]),
        "as the stock loader": error(before[1], pictures(models[0], lora)[1]),
        "against plain": error(before[0], pictures(same, same)[0]),
        "losses": learnt["losses"],
        "plain losses": trained(same)["losses"],
        "learnt": learnt["kv"],
        "same pictures": [torch.equal(*pair) for pair in zip(before, after)],
        "fingerprints": [prints[0] == prints[2], prints[0] != prints[1]],
    }
