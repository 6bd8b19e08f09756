"""Models whose weights are not plain tensors in memory, inside real ComfyUI."""

import pytest


def test_a_scaled_fp8_model_trains_applies_and_stays_as_it_was(probe):
    result = probe("scaled_fp8")
    assert result["stored"] == "torch.float8_e4m3fn"
    assert result["losses"] == pytest.approx(result["plain losses"], rel=2e-3)
    assert result["again"] == result["losses"] and result["runs"] == ["failed", "stopped", "whole"]
    assert result["kv"] > 0 and result["applied"] > 1e-3
    assert result["same pictures"] == [True, True]


def test_a_training_knows_quantised_weights_apart(probe):
    one, again, other = probe("fingerprint_of_stored")
    assert one == again != other


@pytest.mark.parametrize("known", [True, False])
def test_a_training_on_streamed_weights_takes_ones_that_stay(probe, known):
    result = probe("streamed", known=known)
    if not result:
        pytest.skip("this ComfyUI streams no weights")
    assert result["losses"] == 0 and result["static"] and result["apart"] and result["unchanged"]
