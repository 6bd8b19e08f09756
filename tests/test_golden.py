"""The maths against reference vectors, d = 64."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from idea_core import Adapter, Enhancer, mahalanobis
from idea_core.errors import ShapeError

GOLDEN = load_file(Path(__file__).parent / "data" / "idea_forward_d64.safetensors")
D = 64
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


@pytest.fixture(params=TOLERANCE, ids=str)
def golden(request):
    """Reference tensors in one precision, and the relative error allowed in it."""
    return {key: tensor.to(request.param) for key, tensor in GOLDEN.items()}, TOLERANCE[request.param]


def part(golden: dict, prefix: str) -> dict:
    return {key.removeprefix(prefix): tensor for key, tensor in golden.items() if key.startswith(prefix)}


def load(module: torch.nn.Module, state: dict) -> torch.nn.Module:
    module.to(next(iter(state.values())).dtype).load_state_dict(state, strict=True)
    return module


def assert_close(value: torch.Tensor, reference: torch.Tensor, tolerance: float) -> None:
    assert value.shape == reference.shape
    assert (value - reference).abs().max() <= tolerance


def test_enhancer(golden):
    reference, tolerance = golden
    enhancer = load(Enhancer(D), part(reference, "enhancer."))
    assert_close(enhancer(reference["arcface"], reference["anchor"]), reference["fused"], tolerance)


def test_adapter(golden):
    reference, tolerance = golden
    adapter = load(Adapter(D), part(reference, "adapter."))
    context, fused = reference["context"], reference["fused"]
    assert_close(adapter.attended(context, adapter.grounding(fused)), reference["attended"], tolerance)
    assert_close(adapter(context, fused), reference["adapted"], tolerance)


def test_regularizer_and_its_gradient(golden):
    reference, tolerance = golden
    tokens = reference["tokens"].clone().requires_grad_()
    value = mahalanobis(tokens, reference["anchor"])
    value.backward()
    # The reference is about 90, its gradient about 40, and it comes from a dense inverse: by 50-digit arithmetic the
    # reference is 3.6e-10 and 1.7e-9 off the exact values, which the closed form meets to 1e-13. So: relative errors.
    for got, expected in ((value, reference["regularizer"]), (tokens.grad, reference["regularizer_grad"])):
        size = expected.abs().max()
        assert_close(got / size, expected / size, tolerance)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_regularizer_equals_the_dense_inverse_for_any_n(n):
    generator = torch.Generator().manual_seed(n)
    anchor, tokens = torch.randn(2, n, 16, generator=generator, dtype=torch.float64)
    centred = anchor - anchor.mean(0)
    covariance = centred.T @ centred / max(n - 1, 1) + 1e-2 * torch.eye(16, dtype=torch.float64)
    offset = tokens - anchor
    dense = (offset @ covariance.inverse() * offset).sum(-1).sqrt().mean()
    assert torch.allclose(mahalanobis(tokens, anchor, zeta=1e-2), dense, rtol=1e-12)


def test_regularizer_is_flat_at_the_anchor():
    anchor = GOLDEN["anchor"]
    tokens = anchor.clone().requires_grad_()
    mahalanobis(tokens, anchor).backward()
    assert torch.equal(tokens.grad, torch.zeros_like(anchor))


@pytest.mark.parametrize(("strength", "gamma"), [(0.0, 1.0), (1.0, 0.0)])
def test_adapter_without_effect_returns_its_input_bit_for_bit(strength, gamma):
    adapter = load(Adapter(D), part(GOLDEN, "adapter."))
    adapter.gamma.data.fill_(gamma)
    context = GOLDEN["context"]
    assert torch.equal(adapter(context, GOLDEN["fused"], strength), context)


def test_strength_scales_the_difference():
    adapter = load(Adapter(D), part(GOLDEN, "adapter."))
    context, fused = GOLDEN["context"], GOLDEN["fused"]
    difference = adapter.difference(context, adapter.grounding(fused))
    assert torch.allclose(adapter(context, fused, -0.5) - context, -0.5 * difference)


def test_wrong_shapes_are_named():
    with pytest.raises(ShapeError, match=r"Expected id_embeds of shape \(512\) or \(B, 512\), got \(1, 500\)\. Pass"):
        Enhancer(D)(torch.zeros(1, 500), torch.zeros(2, D))
    with pytest.raises(ShapeError, match=r"Expected context of shape \(B, L, 64\), got \(77, 64\)"):
        Adapter(D)(torch.zeros(77, D), torch.zeros(2, 2 * D))
