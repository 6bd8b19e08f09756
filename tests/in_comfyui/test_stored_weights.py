"""Models whose weights are not plain tensors in memory, inside real ComfyUI: scaled fp8, and streamed ones."""

from __future__ import annotations

import pytest
import torch
from inside import INSIDE, in_comfyui
from safetensors.torch import load_file, save_file

if INSIDE:
    import comfy.model_patcher
    import folder_paths
    from probes import NAMES, face, load, pack, photos, training_job, weights_hash
    from probes_stored_weights import FP8, as_started, trained, trains_and_stays, unet, unet_files


def require_trained(result: dict) -> None:
    """Trainings that ended, were cancelled and failed have come to the same end and changed no picture."""
    assert result["again"] == result["losses"] and result["runs"] == ["failed", "stopped", "whole"]
    assert result["kv"] > 0 and result["applied"] > 1e-3
    assert result["changed pictures"] == 0


@in_comfyui
def test_a_scaled_fp8_model_trains_applies_and_stays_as_it_was():
    """And trains as one of the plain weights that it stands for."""
    scaled, plain = map(unet, unet_files())
    weight = scaled.get_model_object("diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k").weight
    assert getattr(weight, "_qdata", weight).dtype == FP8
    result = trains_and_stays(scaled)
    require_trained(result)
    assert result["losses"] == pytest.approx(trained(plain)["losses"], rel=5e-3)


@in_comfyui
def test_a_model_trains_applies_and_stays_as_it_was():
    require_trained(as_started())


STORED = {
    "--fp16-unet": "torch.float16",
    "--bf16-unet": "torch.bfloat16",
    "--fp8_e4m3fn-unet": "torch.float8_e4m3fn",
    "--fp8_e4m3fn-text-enc": "",
    "--cpu-vae": "",
}
"""ComfyUI's option → how the UNet is stored, where the option says it."""


@pytest.mark.slow
@pytest.mark.parametrize("option", STORED)
def test_a_model_trains_applies_and_stays_as_it_was_whatever_comfyui_was_told(start_probe, probe, option):
    with start_probe(option) as other:
        result = other("as_started")
    require_trained(result)
    assert result["stored"] == STORED[option] or not STORED[option]
    assert result["losses"] == pytest.approx(probe("as_started")["losses"], rel=0.15)


@in_comfyui
def test_a_training_knows_quantised_weights_apart():
    """Scaled fp8 UNets: one twice, one with other numbers, and one with another scale."""
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
    one, again, other_numbers, other_scale = (job.fingerprint(unet(name), clip, vae) for name in names)
    assert one == again
    assert len({one, other_numbers, other_scale}) == 3


def streamed(known: bool) -> tuple:
    """MODEL, CLIP and VAE whose patchers say that they stream their weights, as those on GPUs do.

    Args:
        known: whether there is a way to load them again.
    """

    class Streamed(comfy.model_patcher.ModelPatcher):
        def is_dynamic(self):
            return True

    model, clip, vae = load("tiny_sd15")
    copies = [part.clone() for part in (model, clip.patcher)]
    for part in copies:
        part.__class__ = Streamed
        part.cached_patcher_init = part.cached_patcher_init if known else None
    clip = clip.clone()
    clip.patcher = copies[1]
    return copies[0], clip, vae


@in_comfyui
def test_a_training_on_streamed_weights_takes_ones_that_stay():
    """On a processor nothing is streamed; what is looked at is that the training asks for weights that stay."""
    model, clip, _ = load("tiny_sd15")
    if getattr(model, "cached_patcher_init", None) is None:
        pytest.skip("this ComfyUI streams no weights")
    backbone_of = pack("nodes.comfy.backbone").ComfyBackbone
    refused = pytest.raises(pack("idea_core").IdeaError, match="a MODEL and CLIP that can be held in memory")
    with torch.inference_mode(), refused:
        backbone_of(*streamed(known=False), "fp32")
    before, expected = weights_hash(model, clip.patcher), trained(model)
    with torch.inference_mode():
        backbone = backbone_of(*streamed(known=True), "fp32")
    assert not any(one.is_dynamic() for one in (backbone._patcher, backbone._text_patcher))
    assert backbone._network is not model.model.diffusion_model
    with torch.inference_mode(), backbone:
        config = pack("idea_core").TrainConfig(steps=3, batch_size=1)
        losses = list(pack("idea_core").Trainer.of(backbone, photos(), face(), config, NAMES).run())
    assert losses == expected["losses"]
    assert weights_hash(model, load("tiny_sd15")[1].patcher) == before
