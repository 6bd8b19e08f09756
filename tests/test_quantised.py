"""Checkpoints that ComfyUI stores with fewer bits, read without ComfyUI."""

import json

import pytest
import torch
from safetensors.torch import save_file

from idea_core.errors import BaseModelError, IdentityFileError
from idea_core.files.weights import read_weights
from idea_core.headless.diffusers import load_pipeline
from idea_core.headless.diffusers.ldm_config import UNET
from idea_core.headless.diffusers.quantised import plain_weights

FP8 = torch.float8_e4m3fn
LAYERS = (f"{UNET}a.to_k", f"{UNET}b.conv", "cond_stage_model.fc1")


def stored(layout: str, dtype: torch.dtype = FP8, rows: bool = False) -> tuple[dict, dict, dict]:
    """Tensors and metadata of a file in one of ComfyUI's layouts, and the weights that it stands for."""
    generator = torch.Generator().manual_seed(0)
    tensors, layers, meant = {f"{UNET}a.to_k.bias": torch.ones(4, dtype=torch.float16)}, {}, {}
    conf = {"format": "int8_tensorwise" if dtype == torch.int8 else str(dtype).removeprefix("torch.")}
    for layer in LAYERS:
        weight = (torch.randn(4, 3, *([1, 1] if "conv" in layer else []), generator=generator) * 20).to(dtype)
        scale = torch.rand(4 if rows else 1, generator=generator) + 0.5
        meant[f"{layer}.weight"] = weight.float() * scale.reshape(-1, *[1] * (weight.ndim - 1))
        tensors[f"{layer}.weight"] = weight
        old = layout == "old"
        tensors[f"{layer}.{'scale_weight' if old else 'weight_scale'}"] = scale if rows else scale.reshape(())
        tensors[f"{layer}.{'scale_input' if old else 'input_scale'}"] = torch.tensor(0.1)
        layers[layer] = conf
        if layout == "new":
            tensors[f"{layer}.comfy_quant"] = torch.tensor(list(json.dumps(conf).encode()), dtype=torch.uint8)
    if layout == "old":
        tensors[f"{UNET}scaled_fp8"] = torch.zeros(2, dtype=FP8)
    metadata = {"_quantization_metadata": json.dumps({"layers": layers})} if layout == "metadata" else {}
    return tensors, metadata, meant | {f"{UNET}a.to_k.bias": torch.ones(4)}


@pytest.mark.parametrize("rows", [False, True], ids=["one scale", "a scale a row"])
@pytest.mark.parametrize(
    ("layout", "dtype"),
    [("old", FP8), ("new", FP8), ("metadata", FP8), ("new", torch.float8_e5m2), ("new", torch.int8)],
)
def test_scales_are_multiplied_in(tmp_path, layout, dtype, rows):
    tensors, metadata, meant = stored(layout, dtype, rows)
    save_file(tensors, tmp_path / "a.safetensors", metadata)
    found = plain_weights(tmp_path / "a.safetensors")
    assert found.keys() == meant.keys()
    assert all(torch.equal(found[key].float(), meant[key]) for key in meant)
    half = plain_weights(tmp_path / "a.safetensors", UNET, torch.float16)
    assert half[f"{LAYERS[0]}.weight"].dtype == torch.float16 and half[f"{LAYERS[2]}.weight"].dtype == torch.float32


def test_plain_files_stay_as_they_are(tmp_path):
    tensors = {"a.weight": torch.randn(3, 2).half(), "b.weight": torch.ones(2).to(FP8), "ids": torch.arange(3)}
    save_file(tensors, tmp_path / "a.safetensors")
    found = plain_weights(tmp_path / "a.safetensors")
    assert found.keys() == tensors.keys() and all(found[key].dtype == tensors[key].dtype for key in tensors)


def quant(**said) -> torch.Tensor:
    return torch.tensor(list(json.dumps(said).encode()), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("change", "got"),
    [
        ({"x.comfy_quant": quant(format="nvfp4")}, "nvfp4 in x"),
        (
            {"x.comfy_quant": quant(format="int8_tensorwise", params={"convrot": True})},
            "int8_tensorwise with convrot in x",
        ),
        ({"x.comfy_quant": quant()}, "an unknown format in x"),
        ({"x.comfy_quant": torch.tensor([1, 2], dtype=torch.uint8)}, "an unknown format in x"),
        ({"x.weight": torch.zeros(2, 2, dtype=torch.int8)}, "torch.int8 without a scale in x.weight"),
        ({"x.comfy_quant": quant(format="float8_e4m3fn"), "x.weight": torch.zeros(2).to(FP8)}, "without a scale in x"),
        (
            {"x.weight": torch.zeros(2, 2).to(FP8), "x.scale_weight": torch.ones(3)},
            r"a scale of shape \(3,\) for x.weight",
        ),
    ],
)
def test_other_ways_are_refused_by_name(tmp_path, change, got):
    save_file(change, tmp_path / "a.safetensors")
    with pytest.raises(
        BaseModelError, match=f"weights in floating point, or scaled as .*, in a.safetensors, got .*{got}"
    ):
        plain_weights(tmp_path / "a.safetensors")


def test_gguf_is_refused_by_name(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(60))
    with pytest.raises(
        IdentityFileError, match="weights in model.gguf, as .safetensors, .*got GGUF, quantised weights. Cho"
    ):
        read_weights(tmp_path / "model.gguf")
    with pytest.raises(IdentityFileError, match="got GGUF"):
        load_pipeline(tmp_path / "model.gguf")
