"""Other people's node packs, unmodified, beside this one.

They stand in a folder that IDEA_STRANGERS names, each under its own name; their packages are in ComfyUI's Python.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest
import torch
from inside import INSIDE, in_comfyui

if INSIDE:
    import folder_paths
    from probes import apply, encode, error, load, make_identity, notices, pack, sample, training_job
    from probes_stored_weights import pictures, trained
    from probes_transformers import drawn, load_transformer, stranger, trained_transformer
    from safetensors.torch import load_file, save_file
    from tiny_transformers import FILES

    import nodes

pytestmark = pytest.mark.slow

PLACE = "IDEA_STRANGERS"
BYPASSED = "The adapter of <ann> does not act: a node encoded the prompt past Apply's CLIP."
UNMARKED = "No prompt of this sampling is marked as holding <ann>."
UNSCOPED = "The change to keys and values of <ann> does not act in regions that another node computes itself."
PERSON, NEGATIVE = "photo of <ann> smiling", "blurry"


@pytest.fixture(scope="module")
def processes(start_probe) -> Iterator[Callable]:
    """Gives a ComfyUI process with a pack of others in it, by its folder's name."""
    with ExitStack() as stack:

        @cache
        def start(name: str) -> Callable:
            folder = Path(os.environ.get(PLACE, "")) / name
            if not os.environ.get(PLACE) or not folder.is_dir():
                pytest.skip(f"!!! NOT TESTED beside {name}: {PLACE} names no folder with it")
            call = stack.enter_context(start_probe(watched=False))
            call(None, module=__name__, test="load_stranger", arguments={"folder": str(folder)})
            return call

        yield start


@pytest.fixture
def beside(request, processes) -> Callable[[str, str, dict], None]:
    """Runs a test's body beside the pack that its mark `pack_of_others` names."""
    call = processes(*request.node.get_closest_marker("pack_of_others").args)
    return lambda module, test, arguments: call(None, module=module, test=test, arguments=arguments)


def beside_pack(folder: str) -> Callable:
    """A test whose body runs in ComfyUI beside a pack of others."""
    return lambda body: pytest.mark.pack_of_others(folder)(in_comfyui(body, by="beside"))


def load_stranger(folder: str) -> None:
    """Load a node pack as ComfyUI does, in a process that looks like a server to it."""
    os.environ.pop("PYTEST_CURRENT_TEST", None)  # with which one of them leaves its nodes out
    import server

    if not hasattr(server.PromptServer, "instance"):
        server.PromptServer(asyncio.new_event_loop())
    before = set(nodes.NODE_CLASS_MAPPINGS)
    asyncio.run(nodes.load_custom_node(folder, module_parent="custom_nodes"))
    assert set(nodes.NODE_CLASS_MAPPINGS) - before


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
        "against a stock prompt": error(strong, sample(*stock_inputs(checkpoint, ann, text, 1.0), steps=2)),
        "against the name alone": error(strong, sample(*stock_inputs(checkpoint, ann, text, 1e-9), steps=2)),
        "said": notices(lambda: picture(1.0, start=0.3)),
    }


def stock_inputs(checkpoint: str, person, text: str, strength: float) -> tuple:
    model, clip = apply(checkpoint, person, strength)
    return model, encode(clip, text), encode(load(checkpoint)[1], NEGATIVE)


def write_gguf(path: Path, kind: str, weights: dict, change: float = 1.0) -> dict:
    """A file of 8-bit weights for a kind of network; what they stand for, in the precision of `weights`."""
    import gguf as writer  # that pack's own requirement

    stored_as, stand_for = writer.GGMLQuantizationType.Q8_0, dict(weights)
    path.parent.mkdir(parents=True, exist_ok=True)
    file = writer.GGUFWriter(str(path), kind)
    for key, value in weights.items():
        array = value.float().numpy() * change
        if array.ndim == 2 and array.shape[1] % 32 == 0:
            stored = writer.quants.quantize(array, stored_as)
            file.add_tensor(key, stored, raw_dtype=stored_as)
            stand_for[key] = torch.from_numpy(writer.quants.dequantize(stored, stored_as)).to(value.dtype)
        else:
            file.add_tensor(key, array)
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()
    return stand_for


@beside_pack("ComfyUI-GGUF")
def test_a_gguf_model_trains_applies_and_stays_as_it_was(tmp_path):
    """A UNet of GGUF weights, against the weights that it stands for."""
    checkpoint = load_file(folder_paths.get_full_path("checkpoints", "tiny_sd15.safetensors"))
    prefix, place = "model.diffusion_model.", Path(folder_paths.get_folder_paths("diffusion_models")[0])
    plain = {key.removeprefix(prefix): value for key, value in checkpoint.items() if key.startswith(prefix)}
    write_gguf(place / "tiny_1.gguf", "sd1", plain, 1.01)
    save_file(write_gguf(place / "tiny_0.gguf", "sd1", plain), place / "tiny_gguf_plain.safetensors")
    with torch.inference_mode():
        models = [run("UnetLoaderGGUF", unet_name=f"tiny_{number}.gguf") for number in range(2)]
        same = nodes.UNETLoader().load_unet("tiny_gguf_plain.safetensors", "default")[0]
        clip, ann = load("tiny_sd15")[1], make_identity("tiny_sd15")
        person = apply("tiny_sd15", ann, kv_strength=1.0, on=(models[0], clip))[0]
        without = apply("tiny_sd15", ann, on=(models[0], clip))[0]
        ann.save(f"{tmp_path}/ann.safetensors")
        folder_paths.add_model_folder_path("loras", tmp_path)
        lora = nodes.LoraLoader().load_lora(models[0], clip, "ann.safetensors", 1.0, 0.0)[0]
    before = pictures(models[0], person)
    learnt = trained(models[0])
    after = pictures(models[0], person)
    config = pack("idea_core").TrainConfig(steps=1)
    job = training_job("ann", config)
    prints = [job.fingerprint(model, clip, load("tiny_sd15")[2]) for model in (*models, models[0])]
    assert error(before[1], pictures(models[0], without)[1]) > 1e-3  # keys and values act
    assert error(before[1], pictures(models[0], lora)[1]) == 0  # as the stock loader applies them
    assert learnt["losses"] == pytest.approx(trained(same)["losses"], rel=2e-3)
    assert learnt["kv"] > 0
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])
    assert prints[0] == prints[2] != prints[1]


@pytest.fixture
def flux_files(tiny_family) -> str:
    return tiny_family("flux1")


@beside_pack("ComfyUI-GGUF")
def test_a_gguf_transformer_trains_applies_and_stays_as_it_was(flux_files):
    family, place = flux_files, Path(folder_paths.get_folder_paths("diffusion_models")[0])
    weights = torch.load(folder_paths.get_full_path_or_raise("diffusion_models", FILES[family][0]), weights_only=True)
    stands_for = write_gguf(place / "tiny_flux.gguf", "flux", weights)
    save_file({key: value.contiguous() for key, value in stands_for.items()}, place / "tiny_flux_plain.safetensors")
    _, clip, vae = load_transformer(family)
    with torch.inference_mode():
        model = run("UnetLoaderGGUF", unet_name="tiny_flux.gguf")
        same = nodes.UNETLoader().load_unet("tiny_flux_plain.safetensors", "default")[0]
        person = stranger(family, "ann", 1)
        patched, named = apply(family, person, kv_strength=1.0, on=(model, clip))
        without, _ = apply(family, person, kv_strength=0.0, on=(model, clip))
        before = drawn(model, clip, "a dog"), drawn(patched, named, "<ann>")
        assert error(before[1], drawn(without, named, "<ann>")) > 1e-3  # keys and values act
    learnt, losses, _ = trained_transformer(family, 3, loaded=(model, clip, vae))
    assert losses == pytest.approx(trained_transformer(family, 3, loaded=(same, clip, vae))[1], rel=1e-2)
    assert min(losses) < losses[0] and max(weight.abs().max() for weight in learnt.kv.values()) > 0
    with torch.inference_mode():
        assert torch.equal(before[0], drawn(model, clip, "a dog"))
        assert torch.equal(before[1], drawn(patched, named, "<ann>"))


@pytest.mark.parametrize("weights", ["comfy", "A1111", "compel", "comfy++", "down_weight"])
@beside_pack("ComfyUI_ADV_CLIP_emb")
def test_advanced_text_encode(weights):
    how = {"token_normalization": "none", "weight_interpretation": weights}
    result = encoded_by("BNK_CLIPTextEncodeAdvanced", **how)
    assert result["adapter"] > 1e-3
    assert result["without the name"] == 0
    assert result["against a stock prompt"] <= 1e-4
    assert len(result["said"]) == 1
    assert UNMARKED in result["said"][0]
    weighted = encoded_by("BNK_CLIPTextEncodeAdvanced", text="photo of (<ann>:1.3)", **how)
    assert weighted["adapter"] > 1e-3
    assert weighted["without the name"] == 0


@beside_pack("ComfyUI_ADV_CLIP_emb")
def test_advanced_text_encode_takes_sdxls_text_encoders_one_by_one_and_that_is_said():
    how = {"token_normalization": "none", "weight_interpretation": "comfy"}
    result = encoded_by("BNK_CLIPTextEncodeAdvanced", checkpoint="tiny_sdxl", **how)
    assert result["against the name alone"] <= 1e-3
    assert result["adapter"] == 0
    assert len(result["said"]) == 1
    assert BYPASSED in result["said"][0]


@pytest.mark.parametrize("parser", ["comfy", "comfy++", "A1111", "full", "compel", "fixed attention"])
@beside_pack("ComfyUI_smZNodes")
def test_smz_text_encode(parser):
    sizes = dict.fromkeys(("width", "height", "target_width", "target_height"), 64)
    how = {"mean_normalization": True, "multi_conditioning": True, "use_old_emphasis_implementation": False}
    how |= {"with_SDXL": False, "ascore": 6.0, "crop_w": 0, "crop_h": 0, "text_g": "", "text_l": "", **sizes}
    result = encoded_by("smZ CLIPTextEncode", parser=parser, **how)
    assert result["adapter"] > 1e-3
    assert result["without the name"] == 0
    assert result["against a stock prompt"] <= 1e-4


@beside_pack("comfyui-prompt-control")
def test_prompt_control():
    plain = encoded_by("PCTextEncode")
    assert plain["adapter"] > 1e-3
    assert plain["against a stock prompt"] <= 1e-4
    styled = encoded_by("PCTextEncode", text="STYLE(A1111) photo of (<ann>:1.2) CAT in a forest")
    assert styled["adapter"] > 1e-3
    assert styled["without the name"] == plain["without the name"] == 0


@beside_pack("ComfyUI-ppm")
@torch.inference_mode()
def test_regions_that_another_pack_computes():
    """Two people in two regions whose cross attention the pack computes itself."""
    ann, bob = make_identity("tiny_sd15"), make_identity("tiny_sd15", seed=9, name="bob")
    left = torch.zeros(1, 64, 64)
    left[:, :, :32] = 1

    def picture(strength: float = 1.0, **options) -> torch.Tensor:
        on = apply("tiny_sd15", bob, on=apply("tiny_sd15", ann, strength, **options))
        first, second = encode(on[1], "photo of <ann>"), encode(on[1], "photo of <bob>")
        model = run("AttentionCouplePPM", model=on[0], base_cond=first, base_mask=left, cond_1=second, mask_1=1 - left)
        return sample(model, first, encode(on[1], NEGATIVE), steps=1)

    assert error(picture(), picture(-2.0)) > 1e-3  # the adapter acts
    assert error(picture(kv_strength=1.0), picture()) > 1e-3
    said = notices(lambda: picture(kv_strength=1.0, kv_scope="prompts with the person"))
    assert len(said) == 1
    assert UNSCOPED in said[0]
