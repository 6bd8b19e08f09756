"""The network's passes repeated in a training in ComfyUI. A recorder that computes stands for CUDA graphs."""

from __future__ import annotations

import pytest
import torch
from by_computing import ByComputing
from inside import INSIDE, in_comfyui

if INSIDE:
    from probes import face, load, pack, photos

STEPS = 8


def trained(checkpoint: str, recorder: ByComputing | None, checkpointing: bool = False):
    """Losses, weights, and how often the network was repeated."""
    core = pack("idea_core")
    config = core.TrainConfig(steps=STEPS, batch_size=2, kv_lr=0.05)
    make = pack("nodes.comfy.backbone").backbone_of
    with torch.inference_mode(), make(*load(checkpoint), "fp32", checkpointing) as backbone:
        assert backbone.recordings is None  # on the CPU
        if recorder is not None:
            backbone.recordings = pack("idea_core.training.repeated").RepeatedPasses(recorder)
        run = core.Trainer.of(backbone, photos(), face(), config, ["brad pitt", "emma stone"], ["a photo of {}"])
        losses = run.run(lambda step, _: backbone.decode_images(torch.zeros(1, 4, 8, 8)) if step == 5 else None)
        weights = {key: weight.clone() for key, weight in run.weights().items()}
        return losses, weights, backbone.recordings


@pytest.mark.parametrize("checkpoint", ["tiny_sd15", pytest.param("tiny_sdxl", marks=pytest.mark.slow)])
@in_comfyui
def test_repeated_passes_train_the_same_person(checkpoint):
    (usual, weights, _), (losses, repeated, recordings) = (
        trained(checkpoint, recorder) for recorder in (None, ByComputing())
    )
    assert losses == pytest.approx(usual, abs=1e-5)
    assert all(torch.allclose(repeated[key], weight, atol=1e-3) for key, weight in weights.items())
    assert recordings.reason == "" and recordings.repeated == STEPS - pack("idea_core.training.repeated").TRIAL
    assert not recordings.release()  # at the training's end
    assert recordings.bytes == 2


@pytest.mark.slow
@in_comfyui
def test_blocks_that_are_computed_twice_are_not_recorded():
    losses, _, recordings = trained("tiny_sd15", ByComputing(), checkpointing=True)
    assert losses == pytest.approx(trained("tiny_sd15", None)[0], abs=1e-5)
    assert recordings.repeated == 0 and recordings.bytes == 0


@pytest.mark.slow
@in_comfyui
def test_a_recording_of_another_network_is_not_used():
    losses, _, recordings = trained("tiny_sd15", ByComputing(lambda output: 0.9 * output))
    assert losses == pytest.approx(trained("tiny_sd15", None)[0], abs=1e-6)
    assert recordings.repeated == 0 and "an output that differs by 0.1" in recordings.reason
