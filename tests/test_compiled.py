"""A compiled UNet gives the same numbers, whoever's K/V deltas are hung in after it was compiled."""

import logging
from dataclasses import replace

import pytest
import torch
from helpers import trainer
from idea_command import train
from tiny_pipeline import tiny_pipeline

from idea_core import TrainConfig
from idea_core.diffusion.backbone import TextCondition
from idea_core.diffusion.precision import TrainingArithmetic
from idea_core.headless.diffusers import DiffusersBackbone
from idea_core.headless.diffusers.compiled import CompiledNetwork, can_compile
from idea_core.method.kv import UP, KVDeltas
from idea_core.training.preview import Portrait, PreviewConfig


def deltas(backbone: DiffusersBackbone, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made = KVDeltas(backbone.kv_shapes, 2, generator, backbone.device)
    return {key: 0.1 * torch.randn(weight.shape, generator=generator) for key, weight in made.state_dict().items()}


@pytest.mark.parametrize("backend", ["eager", pytest.param("aot_eager", marks=pytest.mark.slow)])
def test_hooks_that_are_hung_in_after_compilation_act(backend):
    usual, compiled = (DiffusersBackbone(tiny_pipeline()) for _ in range(2))
    compiled.compile(backend)
    generator = torch.Generator().manual_seed(0)
    noisy, context = torch.randn(1, 4, 8, 8, generator=generator), torch.randn(1, 77, 768, generator=generator)
    people = [deltas(usual, seed) for seed in (1, 2)]
    seen = []
    for person in (None, people[0], people[1], None):
        outputs = []
        for backbone in (usual, compiled):
            inputs = noisy, torch.tensor([500]), TextCondition(context)
            if person is None:
                outputs.append(backbone.predict(*inputs))
            else:
                with backbone.kv_deltas(person):
                    outputs.append(backbone.predict(*inputs))
        assert torch.allclose(*outputs, atol=1e-6)
        seen.append(outputs[1])
    assert torch.equal(seen[0], seen[3])
    assert min((seen[0] - seen[1]).abs().max(), (seen[1] - seen[2]).abs().max()) > 1e-4


@pytest.mark.parametrize("backend", ["eager", pytest.param("aot_eager", marks=pytest.mark.slow)])
def test_a_persons_training_is_the_same_with_a_compiled_network(backend):
    """Also where the person was drawn before, and where another person was trained before on the same network."""
    config = TrainConfig(steps=3, batch_size=2, kv_lr=0.05)
    pipeline = tiny_pipeline()
    compiled = DiffusersBackbone(pipeline)
    compiled.compile(backend)
    compiled.predict(torch.zeros(1, 4, 8, 8), torch.tensor([500]), TextCondition(torch.zeros(1, 77, 768)))
    for seed in (0, 1):
        usual = trainer(DiffusersBackbone(tiny_pipeline()), replace(config, seed=seed))
        run = trainer(compiled, replace(config, seed=seed))
        with run.active():
            Portrait(run, PreviewConfig(steps=2)).latents()
        assert run.run() == pytest.approx(usual.run(), abs=1e-6)
        moved = [weight for key, weight in run.person.kv.state_dict().items() if key.endswith(UP)]
        expected = [weight for key, weight in usual.person.kv.state_dict().items() if key.endswith(UP)]
        assert len(moved) > 2 and min(weight.abs().max() for weight in moved) > 0.01
        assert all(torch.allclose(one, other, atol=2e-3) for one, other in zip(moved, expected))


def test_the_network_is_compiled_on_request(studio, tmp_path, monkeypatch):
    done, compile_ = [], DiffusersBackbone.compile
    monkeypatch.setattr(DiffusersBackbone, "compile", lambda self: done.append(compile_(self, "eager")))
    plain = train(studio, tmp_path / "a.safetensors", "--json")
    assert not done
    compiled = train(studio, tmp_path / "b.safetensors", "--compile", "--json")
    assert len(done) == 1 and compiled["final_loss"] == pytest.approx(plain["final_loss"], abs=1e-5)


def test_a_network_that_cannot_be_compiled_computes_as_always(caplog):
    def broken(_graph, _inputs):
        raise RuntimeError("no such GPU")

    network = torch.nn.Linear(2, 2)
    compiled, x = CompiledNetwork(network, broken), torch.ones(1, 2)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(compiled(x), network(x)) and torch.equal(compiled(x), network(x))
    said = [line for line in caplog.messages if line.startswith("ID-EA")]
    assert len(said) == 1 and "the network is not compiled" in said[0]
    assert not can_compile(torch.device("cpu"))


@pytest.mark.parametrize(("dtype", "precision"), [(torch.bfloat16, "high"), (torch.float32, "highest")])
def test_a_trainings_arithmetic_ends_with_it(dtype, precision):
    def now() -> tuple:
        return torch.get_float32_matmul_precision(), torch._C._get_sdp_priority_order()

    before = now()
    with pytest.raises(KeyboardInterrupt), TrainingArithmetic(torch.device("cuda"), dtype):
        assert now()[0] == precision
        assert now()[1][0] == int(torch.nn.attention.SDPBackend.CUDNN_ATTENTION)
        raise KeyboardInterrupt
    assert now() == before
    with TrainingArithmetic(torch.device("cpu"), dtype):
        assert now() == before


def test_attention_without_cudnn_after_its_error():
    def first() -> int:
        return torch._C._get_sdp_priority_order()[0]

    usual, cudnn = first(), int(torch.nn.attention.SDPBackend.CUDNN_ATTENTION)
    with TrainingArithmetic(torch.device("cuda"), torch.bfloat16) as arithmetic:
        assert first() == cudnn and not arithmetic.gives_up(RuntimeError("CUDA error: misaligned address"))
        assert first() == cudnn and arithmetic.gives_up(RuntimeError("cuDNN: no valid execution plan"))
        assert first() == usual and torch.get_float32_matmul_precision() == "high"
        assert not arithmetic.gives_up(RuntimeError("cuDNN: no valid execution plan"))
    assert first() == usual
    with TrainingArithmetic(torch.device("cpu"), torch.bfloat16) as arithmetic:
        assert not arithmetic.gives_up(RuntimeError("cuDNN: no valid execution plan"))


@pytest.mark.slow
def test_gradients_that_cannot_be_compiled_are_computed_as_always(caplog):
    """They are compiled when they are first computed, not with the network's call."""
    from functorch.compile import make_boxed_func
    from torch._dynamo.backends.common import aot_autograd

    def broken(_graph, _inputs):
        raise torch._dynamo.exc.BackendCompilerFailed(lambda: None, RuntimeError("no such GPU"))

    backend = aot_autograd(fw_compiler=lambda graph, _: make_boxed_func(graph.forward), bw_compiler=broken)
    config = TrainConfig(steps=3, batch_size=2)
    compiled = DiffusersBackbone(tiny_pipeline())
    compiled.compile(backend)
    usual, run = trainer(DiffusersBackbone(tiny_pipeline()), config), trainer(compiled, config)
    with caplog.at_level(logging.WARNING):
        assert run.run() == pytest.approx(usual.run(), abs=1e-6)
    assert sum("the network is not compiled" in line for line in caplog.messages) == 1


@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="an older PyTorch")
def test_a_precision_that_was_set_in_the_newer_way_stays():
    before = torch.backends.fp32_precision
    torch.backends.fp32_precision = "tf32"
    try:
        with TrainingArithmetic(torch.device("cuda"), torch.bfloat16):
            assert torch.backends.fp32_precision == "tf32"
        assert torch.backends.fp32_precision == "tf32"
    finally:
        torch.backends.fp32_precision = before
    assert torch.get_float32_matmul_precision() == "highest"
