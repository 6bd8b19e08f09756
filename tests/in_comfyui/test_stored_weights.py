"""Models whose weights are not plain tensors in memory, inside real ComfyUI: scaled fp8, and streamed ones."""

from __future__ import annotations

import math

import pytest
import torch
from inside import INSIDE, in_comfyui
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode

if INSIDE:
    import comfy.model_patcher
    import folder_paths
    from probes import NAMES, face, load, notices, pack, photos, sample_plainly, training_job, weights_hash
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


class Conversions(TorchDispatchMode):
    """Counts changes of precision of the tensors that it is given."""

    def __init__(self, weights):
        super().__init__()
        self.places, self.count = {weight.data_ptr() for weight in weights}, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        if function._schema.name == "aten::_to_copy" and args[0].data_ptr() in self.places:
            self.count += output.dtype != args[0].dtype
        return output


def steps_of(precision: str, left: float = 0, checkpointed: bool = False) -> dict:
    """Losses, gradients and conversions of three steps, and what the pack said.

    Args:
        left: times the conversion's memory that must be free.
        checkpointed: whether gradients are checkpointed from the second step on, as when memory runs out.
    """
    counts, losses, gradients = [], [], []
    config = pack("idea_core").TrainConfig(steps=3, batch_size=1)
    converted = pack("nodes.comfy.converted")
    usual = converted.LEFT
    converted.logger.setLevel("INFO")

    def run():
        with torch.inference_mode(), pack("nodes.comfy.backbone").ComfyBackbone(*load("tiny_sd15"), precision) as own:
            trainer = pack("idea_core").Trainer.of(own, photos(), face(), config, NAMES)
            with trainer.active():
                for step in range(3):
                    own.gradient_checkpointing = checkpointed and step > 0
                    modules = (own._network, *own._text.models.values())
                    with Conversions([part for module in modules for part in module.parameters()]) as seen:
                        losses.append(float(trainer.step(trainer.sampler.draw())))
                    counts.append(seen.count)
                gradients.extend(part.grad.clone() for part in trainer.person.parameters())

    try:
        converted.LEFT = left
        said = notices(run)
    finally:
        converted.LEFT = usual
    return {"counts": counts, "losses": losses, "gradients": gradients, "said": [line for line in said if "MB" in line]}


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
@in_comfyui
def test_weights_of_another_precision_are_converted_once(precision):
    """The text encoder is stored in half precision and computes in single; for bf16 all of the UNet is another."""
    model, clip, _ = load("tiny_sd15")
    before, sampled = weights_hash(model, clip.patcher), sample_plainly("tiny_sd15")
    once, each = steps_of(precision), steps_of(precision, left=math.inf)
    assert each["counts"][0] > (150 if precision == "fp32" else 200) and len(set(each["counts"])) == 1
    assert max(once["counts"]) <= 2  # an embedding's rows
    assert once["losses"] == each["losses"]
    assert all(torch.equal(*pair) for pair in zip(once["gradients"], each["gradients"], strict=True))
    assert len(once["said"]) == len(each["said"]) == 1
    assert "are converted once" in once["said"][0] and "at each step, since memory is short" in each["said"][0]
    assert weights_hash(model, clip.patcher) == before and sample_plainly("tiny_sd15") == sampled


@in_comfyui
def test_converted_weights_make_room_when_memory_runs_out():
    clip = load("tiny_sd15")[1]
    before = weights_hash(clip.patcher)
    run, each = steps_of("fp32", checkpointed=True), steps_of("fp32", left=math.inf)
    assert run["counts"][0] <= 2 and run["counts"][1] >= each["counts"][1] > 150
    assert run["losses"] == pytest.approx(each["losses"], rel=1e-6)
    assert weights_hash(clip.patcher) == before
