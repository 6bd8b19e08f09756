"""Identities made of identities."""

import pytest
import torch
from helpers import make_identity
from idea_command import run

from idea_core import Identity
from idea_core.errors import ConfigError
from idea_core.identity.edit import blend, edit, shrink_kv
from idea_core.method.kv import DOWN, UP, delta_of, layers_of


def people():
    """Two with different values everywhere."""
    first = make_identity()
    generator = torch.Generator().manual_seed(5)

    def other(tensor: torch.Tensor) -> torch.Tensor:
        return torch.randn(tensor.shape, generator=generator).to(tensor.dtype)

    second = make_identity(
        name="bob",
        tokens={key: other(tensor) for key, tensor in first.tokens.items()},
        grounding=other(first.grounding),
        adapter={key: other(tensor) for key, tensor in first.adapter.items()},
        kv={key: other(tensor) for key, tensor in first.kv.items()},
    )
    return first, second


def test_a_blend_lies_between(tmp_path):
    first, second = people()
    mixed = blend([first, second], [1, 3], "carol")
    for key in first.tokens:
        expected = 0.25 * first.tokens[key].float() + 0.75 * second.tokens[key].float()
        assert torch.allclose(mixed.tokens[key].float(), expected, atol=2e-3)
    for name in layers_of(first.kv):
        expected = 0.25 * delta_of(first.kv, name) + 0.75 * delta_of(second.kv, name)
        assert torch.allclose(delta_of(mixed.kv, name), expected, atol=0.05)
    assert mixed.trigger == "<carol>" and mixed.training == {"blend": {"alice": 0.25, "bob": 0.75}}
    assert type(mixed).load(mixed.save(tmp_path / "carol.safetensors")).digest() == mixed.digest()


def test_all_of_one_is_that_one():
    first, second = people()
    alone = blend([first, second], [2, 0], "alice").to(torch.float16)
    assert all(torch.equal(alone.tokens[key], first.to(torch.float16).tokens[key]) for key in first.tokens)
    name = next(iter(layers_of(first.kv)))
    assert torch.allclose(delta_of(alone.kv, name), delta_of(first.to(torch.float16).kv, name), atol=1e-3)


def test_full_and_low_rank_mix():
    first, second = people()
    name = next(iter(layers_of(first.kv)))
    full = {**{key: t for key, t in second.kv.items() if not key.startswith(name)}}
    full[name + ".diff"] = delta_of(second.kv, name)
    mixed = blend([first, make_identity(name="bob", kv=full)], [1, 1], "carol")
    expected = (delta_of(first.kv, name) + full[name + ".diff"]) / 2
    assert torch.allclose(delta_of(mixed.kv, name), expected, atol=0.05)


def test_a_lower_rank_loses_what_it_says(tmp_path):
    person = people()[1]
    _, lost = shrink_kv(person, 1000)
    assert lost < 1e-3
    small, lost = shrink_kv(person, 1)
    assert type(small).load(small.save(tmp_path / "small.safetensors")).digest() == small.digest()
    names = list(layers_of(person.kv))
    assert all(small.kv[name + UP].shape[1] == small.kv[name + DOWN].shape[0] == 1 for name in names)
    errors = [(delta_of(small.kv, name) - delta_of(person.kv, name)).square().sum() for name in names]
    total = sum(delta_of(person.kv, name).square().sum() for name in names)
    assert lost == pytest.approx((sum(errors) / total).sqrt().item(), abs=0.01) and lost > 0.1
    assert shrink_kv(make_identity(kv={}), 4)[1] == 0


def test_parts_can_be_left_out():
    person = make_identity()
    bare = edit(person, "eve", keep_face=False, keep_training=False, dtype=torch.bfloat16)
    assert bare.name == "eve" and bare.id_embeds is None and bare.training == {}
    assert next(iter(bare.tokens.values())).dtype == torch.bfloat16
    assert edit(person).digest() == person.digest()


@pytest.mark.parametrize(
    ("others", "weights", "message"),
    [
        ([], [], "at least one person"),
        ([{"base_model": "sd2"}], [1, 1], "people of one base_model, got <alice> sd1, <alice> sd2"),
        ([{"beta": 0.5}], [1, 1], "people of one beta"),
        ([{}], [1], "2 weights of at least 0, not all 0, got 1"),
        ([{}], [0, 0], "not all 0"),
        ([{}], [float("nan"), 1], "not all 0"),
    ],
)
def test_what_cannot_be_mixed(others, weights, message):
    made = [make_identity(other.pop("base_model", "sd1"), **other) for other in map(dict, others)]
    with pytest.raises(ConfigError, match=message):
        blend([make_identity(), *made] if others else [], weights, "x")
    with pytest.raises(ConfigError, match="a rank of at least 1"):
        shrink_kv(make_identity(), 0)


def test_the_commands(tmp_path):
    files = [person.save(tmp_path / f"{person.name}.safetensors") for person in people()]
    out = tmp_path / "carol.safetensors"
    said = run("blend", *files, "--name", "carol", "--weight", "1", "--weight", "3", "--rank", "2", "-o", out, "--json")
    assert said["shares"] == {"alice": 0.25, "bob": 0.75} and said["kv_lost"] > 0
    assert Identity.load(out).name == "carol"
    small = tmp_path / "small.safetensors"
    run("edit", out, "-o", small, "--name", "dora", "--no-face", "--no-training", "--rank", "1", "--dtype", "bf16")
    edited = Identity.load(small)
    assert edited.name == "dora" and edited.id_embeds is None and not edited.training
    assert small.stat().st_size < out.stat().st_size
    assert "another file to write" in run("edit", out, "-o", out, code=1).stderr
    assert "2 weights" in run("blend", *files, "--name", "x", "--weight", "1", code=1).stderr
