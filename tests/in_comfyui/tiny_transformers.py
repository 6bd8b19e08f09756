"""Small random-weight FLUX, FLUX.2 Klein and Z-Image models, which ComfyUI's own loaders take for the real ones.

Run with ComfyUI's Python, in ComfyUI's folder:  python tiny_transformers.py MODELS_FOLDER FAMILY…
FLUX and Klein shrink to a width of 256. Z-Image and Chroma cannot: ComfyUI knows Z-Image by its width, 3840, and builds
five blocks at least, 0.9 G parameters. Class and width of a text encoder come from one tensor's shape, its depth from a
configuration in code, which `TINY_ENCODERS` replaces. Files are small: large weights overlap in storage.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch

TINY_ENCODERS = {
    "qwen3_4b_model_config": {
        "num_hidden_layers": 3,
        "intermediate_size": 256,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
    "t5xxl_model_config": {"num_layers": 1, "d_ff": 256, "num_heads": 4},
}
"""`model_options` of `comfy.sd.load_clip`, which CLIPLoader calls without them."""
KLEIN_LAYERS = 28  # layers 9, 18 and 27 are read
# ComfyUI knows T5-XXL, where it comes alone, by this weight's rows; it belongs to a block that the tiny one lacks.
T5_XXL_MARK = {"encoder.block.23.layer.1.DenseReluDense.wi_1.weight": torch.zeros(10240, 1)}
FILES = {
    "flux1": ("tiny_flux1.ckpt", ["tiny_clip_l.ckpt", "tiny_t5xxl.ckpt"], "taef1"),
    "klein4b": ("tiny_klein4b.ckpt", ["tiny_klein_qwen3_4b.ckpt"], "taef2"),
    "zimage": ("tiny_zimage.ckpt", ["tiny_qwen3_4b.ckpt"], "taef1"),
    "chroma": ("tiny_chroma.ckpt", ["tiny_marked_t5xxl.ckpt"], "taef1"),
}
"""Family → files of network and text encoders, and VAELoader's name of the VAE."""
VAE_CHANNELS = {"taef1": 16, "taef2": 128}
Build = Callable[[], torch.nn.Module]


def write(models: Path, family: str) -> None:
    """Files of a family in ComfyUI's folders below `models`."""
    network, encoders, vae = FILES[family]
    config = encoders_of(family)
    _save(models / "diffusion_models" / network, _filled(NETWORKS[family](), 1.0, seed=1))
    for number, name in enumerate(encoders):
        build = clip_l() if "clip_l" in name else t5xxl(config) if "t5xxl" in name else qwen3(config)
        state = _filled(build, 0.5 if "clip_l" in name else 1.0, seed=2 + number)
        _save(models / "text_encoders" / name, {**state, **(T5_XXL_MARK if "marked" in name else {})})
    _write_vae(models / "vae_approx", vae)


def encoders_of(family: str) -> dict[str, dict]:
    """`TINY_ENCODERS` at the depth that a family needs."""
    config = {key: dict(entries) for key, entries in TINY_ENCODERS.items()}
    if family == "klein4b":
        config["qwen3_4b_model_config"]["num_hidden_layers"] = KLEIN_LAYERS
    return config


def flux1(**sizes_of: int) -> Build:
    import comfy.ldm.flux.model
    import comfy.ops

    sizes = {"in_channels": 16, "out_channels": 16, "vec_in_dim": 768, "context_in_dim": 4096, "mlp_ratio": 4.0}
    kind = {"axes_dim": [16, 56, 56], "theta": 10000, "patch_size": 2, "qkv_bias": True, "guidance_embed": True}
    return _flux(
        comfy.ldm.flux.model.Flux, {**sizes, **kind, "txt_ids_dims": []}, comfy.ops.disable_weight_init, **sizes_of
    )


def klein4b(**sizes_of: int) -> Build:
    import comfy.ldm.flux.model
    import comfy.ops

    sizes = {"in_channels": 128, "out_channels": 128, "vec_in_dim": None, "context_in_dim": 7680, "mlp_ratio": 3.0}
    kind = {"axes_dim": [32] * 4, "theta": 2000, "patch_size": 1, "qkv_bias": False, "guidance_embed": False}
    kind |= {"txt_ids_dims": [3], "global_modulation": True, "mlp_silu_act": True, "ops_bias": False}
    return _flux(comfy.ldm.flux.model.Flux, {**sizes, **kind}, comfy.ops.disable_weight_init, **sizes_of)


def _flux(kind: type, options: dict, operations, **sizes_of: int) -> Build:
    depth = {"hidden_size": 256, "num_heads": 2, "depth": 2, "depth_single_blocks": 2, **sizes_of}
    return lambda: kind(**options, **depth, dtype=torch.bfloat16, device="meta", operations=operations)


def zimage(**sizes_of: int) -> Build:
    import comfy.ldm.lumina.model
    import comfy.ops

    sizes = {"patch_size": 2, "in_channels": 16, "dim": 3840, "cap_feat_dim": 2560, "n_layers": 1, "n_heads": 30}
    kind = {"n_kv_heads": 30, "axes_dims": [32, 48, 48], "axes_lens": [1536, 512, 512], "rope_theta": 256.0}
    kind |= {"qk_norm": True, "ffn_dim_multiplier": 8 / 3, "z_image_modulation": True, "time_scale": 1000.0}
    options = {**sizes, **kind, **sizes_of, "pad_tokens_multiple": 32, "operations": comfy.ops.disable_weight_init}
    return lambda: comfy.ldm.lumina.model.NextDiT(**options, dtype=torch.bfloat16, device="meta")


def chroma(**sizes_of: int) -> Build:
    """As wide as the real one: ComfyUI fixes the width of what makes its modulations."""
    import comfy.ldm.chroma.model
    import comfy.ops

    sizes = {"in_channels": 64, "out_channels": 64, "context_in_dim": 4096, "hidden_size": 3072, "mlp_ratio": 4.0}
    sizes |= {"num_heads": 24, "depth": 1, "depth_single_blocks": 1, "axes_dim": [16, 56, 56], "theta": 10000}
    kind = {"patch_size": 2, "qkv_bias": True, "in_dim": 64, "out_dim": 3072, "hidden_dim": 5120, "n_layers": 5}
    options = {
        **sizes,
        **kind,
        **sizes_of,
        "txt_ids_dims": [],
        "vec_in_dim": None,
        "operations": comfy.ops.disable_weight_init,
    }
    return lambda: comfy.ldm.chroma.model.Chroma(**options, dtype=torch.bfloat16, device="meta")


_LIKE_FLUX = {"hidden_size": 3072, "num_heads": 24}
PUBLISHED = {
    "flux1": {**_LIKE_FLUX, "depth": 19, "depth_single_blocks": 38},
    "klein4b": {**_LIKE_FLUX, "depth": 5, "depth_single_blocks": 20},
    "zimage": {"n_layers": 30},
    "chroma": {"depth": 19, "depth_single_blocks": 38},
}
"""Sizes of the real networks."""
NETWORKS = {"flux1": flux1, "klein4b": klein4b, "zimage": zimage, "chroma": chroma}


def qwen3(encoders: dict[str, dict]) -> Build:
    import comfy.ops
    import comfy.text_encoders.llama

    config = encoders["qwen3_4b_model_config"]
    operations = comfy.ops.disable_weight_init
    return lambda: comfy.text_encoders.llama.Qwen3_4B(config, torch.bfloat16, "meta", operations)


def t5xxl(encoders: dict[str, dict]) -> Build:
    import comfy.ops
    import comfy.text_encoders.t5 as t5

    config = json.loads(Path(t5.__file__).with_name("t5_config_xxl.json").read_text("utf-8"))
    config |= encoders["t5xxl_model_config"]
    return lambda: t5.T5(config, torch.bfloat16, "meta", comfy.ops.disable_weight_init)


def clip_l() -> Build:
    import comfy.clip_model
    import comfy.ops
    import comfy.sd1_clip

    config = json.loads(Path(comfy.sd1_clip.__file__).with_name("sd1_clip_config.json").read_text("utf-8"))
    return lambda: comfy.clip_model.CLIPTextModel(config, torch.bfloat16, "meta", comfy.ops.disable_weight_init)


def _filled(build: Build, gain: float, seed: int) -> dict[str, torch.Tensor]:
    """Random weights: matrices of variance gain² / fan-in, norms' scales of 1, biases of 0."""
    generator, state = torch.Generator().manual_seed(seed), {}
    for key, tensor in build().state_dict().items():
        shape = tensor.shape
        if len(shape) == 2 and min(shape) > 1:
            table = any(name in key for name in ("embed_tokens", "shared", "token_embedding"))
            state[key] = _overlapping(shape, 0.03 if table else gain * shape[1] ** -0.5, generator)
        elif len(shape) > 1:
            state[key] = (torch.randn(shape, generator=generator) * 0.1).to(torch.bfloat16)
        else:
            fill = torch.zeros if key.endswith("bias") else torch.ones
            state[key] = fill(shape, dtype=torch.bfloat16)
    return state


def _overlapping(shape: torch.Size, std: float, generator: torch.Generator) -> torch.Tensor:
    """A random matrix whose rows overlap in storage."""
    rows, columns = shape
    numbers = torch.randn(rows + 7 * (columns - 1), generator=generator) * std
    return torch.as_strided(numbers.to(torch.bfloat16), (rows, columns), (1, 7))


def _write_vae(folder: Path, name: str) -> None:
    """A tiny autoencoder of random weights, in the two files that VAELoader reads."""
    import comfy.taesd.taesd

    generator = torch.Generator().manual_seed(0)
    vae = comfy.taesd.taesd.TAESD(latent_channels=VAE_CHANNELS[name])
    for part in ("encoder", "decoder"):
        state = getattr(vae, f"taesd_{part}").state_dict()
        for key, tensor in state.items():
            if tensor.ndim < 2:
                tensor.fill_(0.0 if key.endswith("bias") else 1.0)
            else:
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.9 * tensor[0].numel() ** -0.5)
        _save(folder / f"{name}_{part}.pt", state)


def _save(path: Path, state: dict[str, torch.Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))  # ComfyUI before this folder
    FOLDER, WANTED, sys.argv[1:] = Path(sys.argv[1]), sys.argv[2:], ["--cpu"]
    import comfy.options

    comfy.options.enable_args_parsing()
    for one in WANTED:
        write(FOLDER, one)
