"""Base models: each is described once, and the description agrees with the models themselves."""

import json
import re
from pathlib import Path

import diffusers
import pytest

from idea_core.families import BASE_MODELS, HEADLESS_FLOWS, IN_ONE_FILE, UNETS, of_config, of_unet
from idea_core.headless.diffusers.flow.networks import NETWORKS
from idea_core.headless.diffusers.single_file import PIPELINES
from miniature.world import BASE

ROOT = Path(__file__).parent.parent
NAMES = sorted({*BASE_MODELS, *(encoder for base in BASE_MODELS.values() for encoder in base.encoders)})
TRANSFORMERS = [base for base in BASE_MODELS.values() if base.transformer]
IN_COMFYUI = [base for base in TRANSFORMERS if base.transformer.configs]


def test_no_other_module_names_a_family_or_its_text_encoders():
    names = ["chroma", "clip_g", "clip_h", "clip_l", "clip_mini", "clip_world", "flux1", "klein4b", "mini", "mini_flow"]
    assert [*names, "qwen3_4b", "qwen3_mini", "sd1", "sd2", "sdxl", "t5xxl", "world3d", "zimage"] == NAMES
    sources = [*(ROOT / "idea_core").rglob("*.py"), *(ROOT / "nodes").rglob("*.py")]
    others = [path for path in sources if "families" not in path.parts]
    assert len(sources) - len(others) > 5 and len(others) > 80
    named = re.compile(rf"[\"']({'|'.join(NAMES)})[\"']")
    assert {
        str(path.relative_to(ROOT)): found for path in others if (found := named.findall(path.read_text("utf-8")))
    } == {}


def test_the_families():
    """Facts of published checkpoints, written out once more."""
    facts = {
        key: (base.title, dict(base.encoders), base.width, base.clip_layer, base.resolution, base.kv_rank)
        for key, base in BASE_MODELS.items()
    }
    assert facts == {
        "sd1": ("Stable Diffusion 1.x", {"clip_l": 768}, 768, -1, 512, 8),
        "sd2": ("Stable Diffusion 2.x", {"clip_h": 1024}, 1024, -2, 512, 8),
        "sdxl": ("Stable Diffusion XL", {"clip_l": 768, "clip_g": 1280}, 2048, -2, 1024, 2),
        "mini": ("the miniature world", {"clip_mini": 128}, 128, -1, 64, 8),
        "world3d": ("the world of people in three dimensions", {"clip_world": 192}, 192, -1, 96, 8),
        "flux1": ("FLUX.1", {"t5xxl": 4096}, 4096, -1, 1024, 4),
        "klein4b": ("FLUX.2 Klein 4B", {"qwen3_4b": 2560}, 7680, -1, 1024, 4),
        "zimage": ("Z-Image", {"qwen3_4b": 2560}, 2560, -2, 1024, 4),
        "chroma": ("Chroma", {"t5xxl": 4096}, 4096, -1, 1024, 4),
        "mini_flow": ("the miniature flow-matching world", {"qwen3_mini": 128}, 128, -2, 96, 4),
    }


@pytest.mark.parametrize("base", UNETS, ids=lambda base: base.key)
def test_a_description_is_of_one_piece(base):
    assert BASE_MODELS[base.key] is base
    assert sum(base.encoders.values()) == base.width  # hidden states stand side by side
    assert base.pipeline in PIPELINES
    assert base.text_layer(None) == base.clip_layer and base.text_layer(-3) == -3
    assert base.resolution_for("eps") == base.resolution <= base.resolution_for("v")
    assert (base.pipeline == "StableDiffusionXLPipeline") == (base.vector_width is not None)


@pytest.mark.parametrize("base", IN_ONE_FILE, ids=lambda base: base.key)
def test_a_checkpoint_is_told_by_its_unet_and_has_each_text_encoder(base):
    assert of_unet(base.width, base.vector_width) is base
    parts = base.checkpoint.text_encoders
    assert len(parts) == len(base.encoders) and len({part.prefix for part in parts}) == len(parts)
    pooled = [part.projection for part in parts if part.projection]
    sizes = 6 * 256  # original size, crop, target size
    assert base.vector_width == (pooled[0] + sizes if pooled else None)
    assert base.resolution % 64 == 0 and 0 < base.checkpoint.latent_scale < 1


@pytest.mark.parametrize("base", TRANSFORMERS, ids=lambda base: base.key)
def test_a_transformer_is_told_by_its_configuration_and_its_text_width(base):
    for config in base.transformer.configs:
        assert of_config(config, base.width) is base
        assert of_config(config, base.width + 1) is None
    assert set(base.transformer.stand_ins) == set(base.encoders) and base.module_width() < base.width
    assert not set(base.encoders) & set(base.plain_encoders)


@pytest.mark.parametrize("base", HEADLESS_FLOWS, ids=lambda base: base.key)
def test_diffusers_knows_the_classes_of_a_transformer(base):
    how = base.transformer.headless
    assert base.pipeline in NETWORKS and getattr(diffusers, base.pipeline) and getattr(diffusers, base.vae)
    assert len(how.layers) * sum(base.encoders.values()) == base.width
    assert (how.shift is None) != how.padded


@pytest.mark.parametrize("base", IN_COMFYUI, ids=lambda base: base.key)
def test_names_of_fused_layers_in_files_are_those_that_files_may_hold(base):
    layers = {
        "flux1": ["double_blocks.3.txt_attn.qkv", "single_blocks.30.linear1"],
        "zimage": ["context_refiner.1.attention.qkv", "layers.29.attention.qkv"],
    }
    for rule, layer in zip(base.transformer.kv, layers.get(base.key, layers["flux1"]), strict=True):
        match = re.fullmatch(rule.layer, layer)
        for name in (rule.keys, rule.values):
            assert re.fullmatch(base.kv_layer, match.expand(name))
        assert re.fullmatch(base.kv_layer, match.expand(rule.keys) + ".bias") is None


def test_other_unets_are_of_no_family():
    assert of_unet(1280, 2560) is None  # SDXL's refiner
    assert of_unet(2048, None) is None and of_unet(1024, 2048) is None  # the latter is unCLIP
    assert of_unet(128, None) is None  # the miniature world has no checkpoints in one file


def test_velocity_models_of_stable_diffusion_2_are_larger():
    assert {key: base.resolution_for("v") for key, base in BASE_MODELS.items()} == {
        "sd1": 512,
        "sd2": 768,
        "sdxl": 1024,
        "mini": 64,
        "world3d": 96,
        **dict.fromkeys([base.key for base in TRANSFORMERS], 1024),
        "mini_flow": 96,
    }


def test_the_miniature_world_is_as_described():
    config = {
        part: json.loads((BASE / part / "config.json").read_text("utf-8")) for part in ("unet", "vae", "text_encoder")
    }
    mini, pixels = BASE_MODELS["mini"], 2 ** (len(config["vae"]["block_out_channels"]) - 1)
    assert mini.checkpoint is None
    assert config["unet"]["cross_attention_dim"] == mini.width == config["text_encoder"]["hidden_size"]
    assert config["text_encoder"]["max_position_embeddings"] == mini.context_length
    assert config["vae"]["latent_channels"] == config["unet"]["in_channels"] == mini.latent_channels
    assert config["unet"]["sample_size"] * pixels == mini.resolution
    assert json.loads((BASE / "model_index.json").read_text("utf-8"))["_class_name"] == mini.pipeline
