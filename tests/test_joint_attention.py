"""Parts for transformers that read text and image together: flow, narrow Adapter, K/V in fused layers, rows of text."""

import pytest
import torch
from helpers import photos, trainer
from tiny_pipeline import tiny_pipeline

from idea_core import Adapter, BaseModelRef, Identity, TextCondition, TrainConfig
from idea_core.diffusion.schedule import FlowSchedule
from idea_core.errors import ConfigError, IdentityFileError
from idea_core.headless.diffusers import DiffusersBackbone
from idea_core.identity.edit import blend
from idea_core.method.kv import FusedKV, KVDeltas, delta_of
from idea_core.training.batches import Photos

K, V = "diffusion_model.layers.0.attention.to_k", "diffusion_model.layers.0.attention.to_v"


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_flow_is_a_straight_line_from_noise_to_the_image(shift):
    schedule = FlowSchedule(shift)
    image, noise = torch.randn(2, 3, 4, 8, 8, generator=generator())
    sigmas = torch.tensor([1.0, 0.5, 0.001])
    noisy, target = schedule.add_noise(image, noise, sigmas), schedule.target(image, noise, sigmas)
    assert torch.equal(noisy[0], noise[0]) and torch.allclose(noisy[1], (image[1] + noise[1]) / 2)
    assert torch.equal(target, noise - image)
    clean, error = schedule.split(noisy, target, sigmas)
    assert torch.allclose(clean, image, atol=1e-6) and torch.allclose(error, noise, atol=1e-6)
    levels = schedule.levels(4)
    assert levels[0] == 1 and levels[-1] == 0 and levels.diff().max() < 0
    assert levels[2] == pytest.approx(shift / (1 + shift))  # half the time


def test_a_step_between_two_levels_of_a_flow_is_eulers():
    schedule, noisy = FlowSchedule(3.0), torch.randn(2, 4, 8, 8, generator=generator())
    output, now, later = torch.randn(noisy.shape, generator=generator(1)), torch.tensor([0.8]), torch.tensor([0.5])
    clean, error = schedule.split(noisy, output, now.expand(2))
    assert torch.allclose(schedule.add_noise(clean, error, later.expand(2)), noisy + (later - now) * output, atol=1e-6)


def test_levels_of_a_flow_are_logit_normal_behind_the_shift():
    schedule = FlowSchedule(3.0)
    drawn = schedule.draw(20_000, generator())
    time = drawn / (3 - 2 * drawn)  # the shift's inverse
    logits = torch.logit(time)
    assert drawn.min() > 0 and drawn.max() < 1
    assert logits.mean() == pytest.approx(0, abs=0.03) and logits.std() == pytest.approx(1, abs=0.03)
    assert torch.equal(schedule.draw(5, generator()), schedule.draw(5, generator()))
    weights = schedule.min_snr(torch.tensor([0.01, 0.5, 0.99]), 2.0, 5.0)
    assert torch.allclose(weights, torch.tensor([2e-4, 0.5, 5 * (0.01 / 0.99) ** 2 * 0.9801]), rtol=1e-4)


def test_a_narrow_adapter_follows_the_size_of_each_row():
    adapter = Adapter(40, heads=2, width=8)
    assert adapter.grounding(torch.randn(2, 16)).shape == (2, 8)
    adapter.open_without_effect(1.0)
    context, fused = torch.randn(1, 5, 40, generator=generator()), torch.randn(2, 16, generator=generator(1))
    assert torch.equal(adapter(context, fused), context)
    torch.nn.init.normal_(adapter.out.weight, generator=generator(2))
    grounding = adapter.grounding(fused)
    difference = adapter.difference(context, grounding)
    scaled = adapter.difference(context * torch.tensor([1.0, 100, 1, 1, 1])[:, None], grounding)
    assert difference.shape == context.shape and difference.abs().max() > 0
    assert torch.allclose(scaled[:, 1], 100 * difference[:, 1], rtol=1e-3)
    assert torch.allclose(scaled[:, 2:], difference[:, 2:], rtol=1e-3, atol=1e-5)


def test_an_adapter_at_the_texts_own_width_has_no_projections():
    assert Adapter(40, heads=2).state_dict().keys() == Adapter(40, heads=2, width=40).state_dict().keys()
    assert "into.weight" in Adapter(40, heads=2, width=8).applied_weights()


@pytest.mark.parametrize("rank", [0, 2])
def test_rows_of_a_fused_layer_change_as_its_whole_weight_would(rank):
    layer = torch.nn.Linear(6, 3 * 6 + 5)
    deltas = KVDeltas({K: (6, 6), V: (6, 6)}, rank, generator(), torch.device("cpu"))
    state = {key: torch.randn(weight.shape, generator=generator(3)) for key, weight in deltas.state_dict().items()}
    x = torch.randn(2, 7, 6, generator=generator(1))
    fused, output = FusedKV(K, V, text_only=False), layer(x)
    with torch.no_grad():
        layer.weight[6:12] += delta_of(state, K)
        layer.weight[12:18] += delta_of(state, V)
    assert torch.allclose(fused.changed(x, output, state, None), layer(x), atol=1e-4)
    marks = torch.zeros(2, 4, 1)  # four tokens of text, three of an image after them
    marks[1, 2] = 0.5
    changed = fused.changed(x, output, state, marks)
    there = torch.zeros(2, 7, dtype=torch.bool)
    there[1, 2] = True
    assert torch.equal(changed[~there], output[~there])
    assert torch.allclose(changed[1, 2], (output[1, 2] + layer(x)[1, 2]) / 2, atol=1e-4)
    later = fused.changed(x, output, state, marks, first=2)  # two rows before the text
    assert torch.allclose(later[1, 4], (output[1, 4] + layer(x)[1, 4]) / 2, atol=1e-4)
    assert torch.equal(later[:, :4], output[:, :4]) and torch.equal(later[:, 5:], output[:, 5:])


def test_rows_of_a_text_condition_are_replaced_where_a_person_stands():
    condition = TextCondition(torch.zeros(2, 5, 3), places=torch.tensor([[1, 2], [3, 4]]))
    rows = torch.tensor([[1.0, 1, 1], [2, 2, 2]], requires_grad=True)
    context = condition.with_rows(rows).context
    assert context[..., 0].tolist() == [[0, 1, 2, 0, 0], [0, 0, 0, 1, 2]]
    context.sum().backward()
    assert (rows.grad == 2).all()
    masked = condition._replace(entries={"mask": torch.arange(2)[:, None], "kind": "x"})
    assert masked.rows(torch.tensor([1])).entries == {"mask": torch.tensor([[1]]), "kind": "x"}


def test_a_prompt_says_where_its_pseudo_tokens_stand():
    backbone = DiffusersBackbone(tiny_pipeline("sdxl"))
    vectors = {encoder: [torch.zeros(2, width)] * 2 for encoder, width in (("clip_l", 768), ("clip_g", 1280))}
    condition = backbone.encode([backbone.read("abc {}"), backbone.read("{} d")], vectors)
    assert condition.places.tolist() == [[4, 5], [1, 2]]
    assert backbone.encode([backbone.read("abc")]).places is None


def test_pieces_of_a_batch_may_be_of_one_caption_each():
    backbone = DiffusersBackbone(tiny_pipeline())
    run = trainer(backbone, TrainConfig(batch_size=7), [Photos(photos(), ["x", "y"])], captions=["{}", "a {}"])
    batch = run.sampler.draw()
    parts = batch.parts(2, by_caption=True)
    assert all(len(part.captions.unique()) == 1 and len(part.photos) <= 2 for part in parts)
    assert torch.equal(torch.cat([part.levels for part in parts]).sort()[0], batch.levels.sort()[0])
    assert [len(part.photos) for part in batch.parts(3)] == [3, 3, 1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"space": "output"}, "Expected space = input, got output on Stable Diffusion 1.x. Set space to input."),
        ({"kv_scope": "person"}, "Expected kv_scope whole on Stable Diffusion 1.x, got person. Set kv_scope to auto."),
        ({"adapter_width": 12}, "Expected heads to divide the width 12, got 8. Change heads."),
    ],
)
def test_settings_that_a_family_does_not_have_are_refused(settings, message):
    with pytest.raises(ConfigError) as refused:
        trainer(DiffusersBackbone(tiny_pipeline()), TrainConfig(**settings))
    assert str(refused.value) == message


def test_a_narrow_person_of_stable_diffusion_is_saved_and_read(tmp_path):
    run = trainer(DiffusersBackbone(tiny_pipeline()), TrainConfig(steps=1, batch_size=1, adapter_width=16))
    run.run()
    path = run.identity("alice").save(tmp_path / "a.safetensors")
    person = Identity.load(path)
    assert person.base_ref.adapter_width == person.grounding.shape[1] == 16 and person.anchor.shape[1] == 768
    assert torch.equal(person.build_adapter().into.weight, run.person.adapter.into.weight.half().float())


def joint_person(**changes) -> Identity:
    """A person of Z-Image with rows and K/V changes, of random weights."""
    adapter = Adapter(2560, width=256).applied_weights()
    kv = {f"{K}.lora_up.weight": torch.randn(64, 4), f"{K}.lora_down.weight": torch.randn(4, 64)}
    parts = {
        "tokens": {"qwen3_4b": torch.randn(2, 2560)},
        "rows": torch.randn(2, 2560),
        "anchor": torch.randn(2, 2560),
        "grounding": torch.randn(2, 256),
        "adapter": {key: weight.detach() for key, weight in adapter.items()},
        "kv": kv,
        "kv_scope": "person",
    }
    return Identity(name="ann", base_ref=BaseModelRef("zimage", "flow", None, 8, 0.4), **{**parts, **changes})


def test_a_person_of_a_transformer_is_saved_read_and_blended(tmp_path):
    person = joint_person()
    again = Identity.load(person.save(tmp_path / "a.safetensors", None))
    assert again.digest() == person.digest() and again.metadata() == person.metadata()
    assert again.metadata()["kv_scope"] == "person" and again.has_rows
    both = blend([person, joint_person()], [1, 1], "both")
    assert both.kv_scope == "person" and both.rows.shape == (2, 2560) and both.base_ref.width == 256
    with pytest.raises(ConfigError, match="people of one kv_scope, got <ann> person, <ann> whole"):
        blend([person, joint_person(kv_scope="whole")], [1, 1], "both")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kv_scope": "all"}, "kv_scope of the base model, got 'all'"),
        ({"rows": torch.zeros(2, 256)}, r"rows of shape \(2, 2560\)"),
        ({"kv": {f"{K}.lora_up.weight": torch.zeros(64, 4)}}, "only keys of an identity"),
        ({"kv": {f"{K.replace('layers', 'blocks')}.diff": torch.zeros(64, 64)}}, "only keys of an identity"),
        (
            {"kv": {f"{K}.diff": torch.zeros(64, 64), f"{V}.diff": torch.zeros(64, 65)}},
            r"to_v.diff of shape \(64, 64\), got \(64, 65\)",
        ),
    ],
)
def test_a_damaged_person_of_a_transformer_is_refused(changes, message):
    with pytest.raises(IdentityFileError, match=message):
        joint_person(**changes)
