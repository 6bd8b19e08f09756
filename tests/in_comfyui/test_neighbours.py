"""Apply ID-Adapter beside what else hangs on a MODEL, a CLIP or a conditioning, inside real ComfyUI."""

import pytest

slow = pytest.mark.slow
NEIGHBOURS = [  # and whether each of them acts on the tiny UNet, which lacks what some of them change
    ("attention replaced", True),
    pytest.param("attention patched", True, marks=slow),
    ("LoRA", True),
    ("merge", True),
    pytest.param("Deep Shrink", False, marks=slow),
    pytest.param("RescaleCFG", True, marks=slow),
    pytest.param("FreeU", False, marks=slow),
    pytest.param("PAG", False, marks=slow),
    pytest.param("SAG", True, marks=slow),
    pytest.param("HyperTile", False, marks=slow),
    pytest.param("ToMe", False, marks=slow),
    pytest.param("LCM sampling", True, marks=slow),
    pytest.param("zero SNR", True, marks=slow),
    pytest.param("attention multiplied", True, marks=slow),
]


@pytest.mark.parametrize(("neighbour", "acts"), NEIGHBOURS)
def test_a_neighbour_sees_the_adapted_text(probe, neighbour, acts):
    result = probe("beside", neighbour=neighbour)
    assert result["before"] <= 1e-5 and result["after"] <= 1e-5 and result["finite"]
    assert result["adapter"] > 1e-3
    assert result["neighbour"] > 1e-3 or not acts
    assert result["said"] == []


@slow
def test_a_compiled_model_sees_the_adapted_text(start_probe):
    with start_probe(watched=False) as probe:  # it starts the compiler
        result = probe("beside", neighbour="torch.compile")
    assert result["before"] <= 1e-5 and result["after"] <= 1e-5 and result["adapter"] > 1e-3


def test_a_lora_of_the_text_encoder_may_stand_before_or_after(probe):
    result = probe("lora_of_the_text")
    assert result["text"] <= 1e-5 and result["difference"] <= 1e-5
    assert result["picture"] <= 2e-3  # the UNet's half weights are changed in another order, and rounded
    assert result["LoRA"] > 1e-3


@slow
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


@pytest.mark.parametrize(("kind", "channels"), [("inpainting", 9), pytest.param("pix2pix", 8, marks=slow)])
def test_a_person_fits_models_that_see_a_picture_to_change(probe, kind, channels):
    result = probe("derived", kind=kind)
    assert result["channels"] == channels
    assert result["error"] <= 1e-5 and result["adapter"] > 1e-3


def test_batches_and_sides(probe):
    errors = probe("shapes")
    assert len(errors) == 5 and max(errors.values()) <= 1e-5


def test_models_may_be_pushed_out(probe):
    assert probe("loaded_and_unloaded") == {"same": True, "base": True, "dropped": True}


def test_a_model_goes_as_soon_as_nothing_uses_it(probe):
    assert probe("freed_without_collection") == {"model": True, "unet": True}


def test_clones_share_the_persons_weights(probe):
    result = probe("copies")
    assert result["of three"] == result["of one"] > 0


@slow
def test_every_sampler(probe):
    errors = probe("samplers")
    assert len(errors) > 30 and max(errors.values()) <= 1e-4


@slow
def test_at_strength_0_no_sampler_and_scheduler_gives_another_picture(probe):
    assert probe("at_strength_0") == []
