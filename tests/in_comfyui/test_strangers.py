"""Other people's node packs, unmodified, beside this one.

They stand in a folder that IDEA_STRANGERS names, each under its own name; their packages are in ComfyUI's Python.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PLACE = "IDEA_STRANGERS"
BYPASSED = "The adapter of <ann> does not act: a node encoded the prompt past Apply's CLIP."
UNMARKED = "No prompt of this sampling is marked as holding <ann>."
UNSCOPED = "The change to keys and values of <ann> does not act in regions that another node computes itself."


@pytest.fixture(scope="module")
def stranger(start_probe) -> Iterator[Callable]:
    """Gives a ComfyUI process with a pack of others in it, by its folder's name."""
    with ExitStack() as stack:

        @cache
        def start(name: str, node: str) -> Callable:
            folder = Path(os.environ.get(PLACE, "")) / name
            if not os.environ.get(PLACE) or not folder.is_dir():
                pytest.skip(f"!!! NOT TESTED beside {name}: {PLACE} names no folder with it")
            probe = stack.enter_context(start_probe(watched=False))
            assert node in probe("load_stranger", folder=str(folder))
            return probe

        yield start


def test_a_gguf_model_trains_applies_and_stays_as_it_was(stranger, tmp_path):
    result = stranger("ComfyUI-GGUF", "UnetLoaderGGUF")("gguf", folder=str(tmp_path))
    assert result["kv"] > 1e-3 and result["as the stock loader"] == 0
    assert result["losses"] == pytest.approx(result["plain losses"], rel=2e-3) and result["learnt"] > 0
    assert result["same pictures"] == [True, True] and result["fingerprints"] == [True, True]


@pytest.mark.parametrize("weights", ["comfy", "A1111", "compel", "comfy++", "down_weight"])
def test_advanced_text_encode(stranger, weights):
    probe = stranger("ComfyUI_ADV_CLIP_emb", "BNK_CLIPTextEncodeAdvanced")
    how = {"token_normalization": "none", "weight_interpretation": weights}
    result = probe("encoded_by", node_id="BNK_CLIPTextEncodeAdvanced", **how)
    assert result["adapter"] > 1e-3 and result["without the name"] == 0
    assert result["against a stock prompt"] <= 1e-4
    assert len(result["said"]) == 1 and UNMARKED in result["said"][0]
    weighted = probe("encoded_by", node_id="BNK_CLIPTextEncodeAdvanced", text="photo of (<ann>:1.3)", **how)
    assert weighted["adapter"] > 1e-3 and weighted["without the name"] == 0


def test_advanced_text_encode_takes_sdxls_text_encoders_one_by_one_and_that_is_said(stranger):
    probe = stranger("ComfyUI_ADV_CLIP_emb", "BNK_CLIPTextEncodeAdvanced")
    how = {"token_normalization": "none", "weight_interpretation": "comfy"}
    result = probe("encoded_by", node_id="BNK_CLIPTextEncodeAdvanced", checkpoint="tiny_sdxl", **how)
    assert result["against the name alone"] <= 1e-3 and result["adapter"] == 0
    assert len(result["said"]) == 1 and BYPASSED in result["said"][0]


@pytest.mark.parametrize("parser", ["comfy", "comfy++", "A1111", "full", "compel", "fixed attention"])
def test_smz_text_encode(stranger, parser):
    probe = stranger("ComfyUI_smZNodes", "smZ CLIPTextEncode")
    sizes = dict.fromkeys(("width", "height", "target_width", "target_height"), 64)
    how = {"mean_normalization": True, "multi_conditioning": True, "use_old_emphasis_implementation": False}
    how |= {"with_SDXL": False, "ascore": 6.0, "crop_w": 0, "crop_h": 0, "text_g": "", "text_l": "", **sizes}
    result = probe("encoded_by", node_id="smZ CLIPTextEncode", parser=parser, **how)
    assert result["adapter"] > 1e-3 and result["without the name"] == 0
    assert result["against a stock prompt"] <= 1e-4


def test_prompt_control(stranger):
    probe = stranger("comfyui-prompt-control", "PCTextEncode")
    plain = probe("encoded_by", node_id="PCTextEncode")
    assert plain["adapter"] > 1e-3 and plain["against a stock prompt"] <= 1e-4
    styled = probe("encoded_by", node_id="PCTextEncode", text="STYLE(A1111) photo of (<ann>:1.2) CAT in a forest")
    assert styled["adapter"] > 1e-3 and styled["without the name"] == plain["without the name"] == 0


def test_regions_that_another_pack_computes(stranger):
    result = stranger("ComfyUI-ppm", "AttentionCouplePPM")("regions_by_attention")
    assert result["adapter"] > 1e-3 and result["kv"] > 1e-3
    assert len(result["said"]) == 1 and UNSCOPED in result["said"][0]
