"""Apply ID-Adapter beside what else hangs on a MODEL, a CLIP or a conditioning, inside real ComfyUI."""

import pytest

NEIGHBOURS = [
    "attention replaced",
    "attention patched",
    "LoRA",
    "merge",
    "FreeU",
    "PAG",
    "HyperTile",
    "ToMe",
    "Deep Shrink",
    "RescaleCFG",
    "LCM sampling",
    "zero SNR",
    "attention multiplied",
]


@pytest.mark.parametrize("neighbour", NEIGHBOURS)
def test_a_neighbour_sees_the_adapted_text(probe, neighbour):
    result = probe("beside", neighbour=neighbour)
    assert result["before"] <= 1e-5 and result["after"] <= 1e-5 and result["finite"]
    assert result["adapter"] > 1e-3


@pytest.mark.parametrize("neighbour", ["attention replaced", "attention patched", "LoRA", "merge", "RescaleCFG"])
def test_the_neighbour_acts(probe, neighbour):
    assert probe("beside", neighbour=neighbour)["neighbour"] > 1e-3


def test_a_lora_of_the_text_encoder_may_stand_before_or_after(probe):
    result = probe("lora_of_the_text")
    assert result["text"] <= 1e-5 and result["difference"] <= 1e-5
    assert result["picture"] <= 2e-3  # the UNet's half weights are changed in another order, and rounded
    assert result["LoRA"] > 1e-3


@pytest.mark.parametrize("guider", ["CFG", "CFG 1", "DualCFG", "PerpNeg"])
def test_a_guider_sees_the_adapted_text(probe, guider):
    result = probe("with_guider", guider=guider)
    assert result["error"] <= 1e-5 and result["adapter"] > 1e-3


def test_weight_hooks_and_the_adapter(probe):
    result = probe("with_hooks")
    assert result["error"] <= 1e-5 and result["adapter"] > 1e-3 and result["hook"] > 1e-3


def test_a_controlnet_and_the_adapter(probe):
    result = probe("with_controlnet")
    assert result["error"] <= 1e-5 and result["control"] > 1e-3


def test_batches_and_sides(probe):
    errors = probe("shapes")
    assert len(errors) == 5 and max(errors.values()) <= 1e-5


def test_models_may_be_pushed_out(probe):
    assert probe("loaded_and_unloaded") == {"same": True, "base": True, "dropped": True}


def test_clones_share_the_persons_weights(probe):
    result = probe("copies")
    assert result["of three"] == result["of one"] > 0


@pytest.mark.slow
def test_every_sampler(probe):
    errors = probe("samplers")
    assert len(errors) > 30 and max(errors.values()) <= 1e-4
