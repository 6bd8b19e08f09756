"""Weights in prompts, as `idea generate` reads and applies them."""

import pytest
import torch
from emphasis_cases import CASES
from helpers import FAMILIES, make_identity, train
from hypothesis import given
from hypothesis import strategies as st
from tiny_pipeline import tiny_pipeline

from idea_core.errors import ConfigError
from idea_core.headless.diffusers import People
from idea_core.headless.diffusers.generate import conditions
from idea_core.text.emphasis import weighted_texts
from idea_core.text.prompts import without_people


@pytest.mark.parametrize("prompt", CASES)
def test_prompts_are_read_as_comfyui_reads_them(prompt):
    assert weighted_texts(prompt) == CASES[prompt]


@given(st.text(alphabet="()\\:. 15a<>", max_size=40))
def test_every_prompt_is_read(prompt):
    texts = weighted_texts(prompt)
    assert sum(len(text) for text, _ in texts) <= len(prompt)
    without_people(prompt)


def test_nesting_beyond_all_measure_is_read():
    assert weighted_texts("(" * 2000 + "a" + ")" * 2000)[0][0] == "a"


@pytest.mark.parametrize("family", FAMILIES)
def test_each_token_is_scaled_from_the_empty_prompt(family):
    pipeline = tiny_pipeline(family)
    identity = make_identity(family, kv={})
    people, bare = People(pipeline, [identity]), People(pipeline, [identity], strength=0.0)
    prompt, weighted = "ab <alice> cd", "ab (<alice>:1.5) (c:0.25)d"
    n = identity.num_tokens
    weights = torch.ones(77, 1)
    weights[3 : 3 + n], weights[3 + n] = 1.5, 0.25  # start token, "a", "b", the person, "c"
    plain, pooled, *_ = bare.encode("ab <alice> c d")
    empty = bare.encode("").context
    meant = empty + weights * (plain - empty)
    got = bare.encode(weighted)
    assert torch.allclose(got.context, meant, atol=1e-6) and (got.context - plain).abs().max() > 1e-3
    assert pooled is None or torch.equal(pooled, got.pooled)  # weights leave it alone
    assert torch.equal(got.context[:, :3], plain[:, :3]) and torch.equal(got.context[:, 4 + n :], plain[:, 4 + n :])
    difference = identity.build_adapter().difference(got.context, identity.grounding.float())  # of what was weighed
    assert torch.equal(people.encode(weighted).context, got.context + difference)
    assert not torch.equal(people.encode(prompt).context, people.encode(weighted).context)


def test_weights_in_further_chunks_and_in_negative_prompts():
    pipeline = tiny_pipeline()
    people = People(pipeline, [])
    long = "x " * 75
    context, plain = people.encode(long + "(y:2)").context, people.encode(long + "y").context
    assert torch.equal(context[:, :77], plain[:, :77]) and torch.equal(context[:, 79:], plain[:, 79:])
    empty = people.encode("").context
    assert torch.allclose(context[:, 78], empty[:, 1] + 2 * (plain[:, 78] - empty[:, 1]), atol=1e-6)
    weighted = conditions(people, "a", "(b:1.5)")["negative_prompt_embeds"]
    assert torch.equal(weighted, people.encode("(b:1.5)").context)
    assert not torch.equal(weighted, people.encode("b").context)


def test_a_weight_of_one_changes_no_bit():
    people = People(tiny_pipeline(), [train(tiny_pipeline())])
    one = people.encode("ab <alice> cd").context
    assert torch.equal(one, people.encode("(ab:1) (<alice>:1.0) (cd:1)").context)


@pytest.mark.parametrize("weight", ["inf", "nan", "1e999"])
def test_weights_that_are_no_numbers_are_refused(weight):
    with pytest.raises(ConfigError, match="Expected finite weights in .*, got (inf|nan). Write weights such as"):
        People(tiny_pipeline(), []).encode(f"(a:{weight})")
