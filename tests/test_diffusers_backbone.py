"""The diffusers front end at tiny size: training, names, people in prompts, pictures."""

import gc
import weakref

import numpy as np
import pytest
import torch
from helpers import FAMILIES, face, make_identity, photos, train
from tiny_pipeline import tiny_pipeline

from idea_core import TrainConfig, Trainer
from idea_core.errors import BaseModelError, ConfigError
from idea_core.families.ldm_names import to_diffusers, to_ldm
from idea_core.headless.diffusers import (
    SCHEDULERS,
    DiffusersBackbone,
    GenerateConfig,
    People,
    applied,
    generate,
    load_pipeline,
)
from idea_core.headless.diffusers.backbone import cross_attention_layers
from idea_core.headless.diffusers.schedule import prediction_of, stable_diffusion_schedule
from idea_core.method import kv
from idea_core.text.prompts import in_chunks, split_prompt, unknown_names, without_people

QUICK = TrainConfig(steps=2, batch_size=2)

LAST = ".transformer_blocks.0.attn2.to_k"


def sample(pipeline, people: People, prompt: str, count: int = 1, **settings) -> list[np.ndarray]:
    config = GenerateConfig(**{"steps": 2, **settings})
    return [np.asarray(picture) for _, picture in generate(pipeline, people, prompt, count, config)]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "dtype",
    [torch.float32, torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.slow)],  # half is slow on processors
    ids=["fp32", "bf16", "fp16"],
)
def test_every_family_trains_and_generates_in_every_precision(family, dtype):
    pipeline = tiny_pipeline(family).to(dtype)
    identity = train(pipeline)
    assert identity.base_model == family
    assert set(identity.tokens) == set(identity.base.encoders)
    (picture,) = sample(pipeline, People(pipeline, [identity]), "photo of <alice>")
    assert picture.shape == (16, 16, 3) and picture.std() > 0


def test_gradients_survive_half_precision():
    gradients = []
    for dtype in (torch.float32, torch.float16):
        run = Trainer.of(DiffusersBackbone(tiny_pipeline().to(dtype)), photos(), face(), QUICK, ["ab", "cd"])
        with run.active():
            run.scaler.scale(run.loss(run.sampler.draw())).backward()
        gradients.append(run.person.tokens["clip_l"].grad / run.scaler.get_scale())
    single, half = (gradient.flatten() for gradient in gradients)
    assert torch.nn.functional.cosine_similarity(single, half, dim=0) > 0.99
    assert half.norm() == pytest.approx(single.norm().item(), rel=0.05)


def test_gradient_checkpointing_changes_no_number():
    results = []
    for checkpointing in (False, True):
        backbone = DiffusersBackbone(tiny_pipeline(), gradient_checkpointing=checkpointing)
        run = Trainer.of(backbone, photos(), face(), QUICK, ["ab", "cd"])
        run.run()
        results.append(run.identity("alice").digest())
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("diffusers", "ldm"),
    [
        ("down_blocks.0.attentions.1", "input_blocks.2.1"),
        ("down_blocks.2.attentions.1", "input_blocks.8.1"),
        ("mid_block.attentions.0", "middle_block.1"),
        ("up_blocks.1.attentions.0", "output_blocks.3.1"),
        ("up_blocks.3.attentions.2", "output_blocks.11.1"),
    ],
)
def test_layers_have_their_names_in_published_checkpoints(diffusers, ldm):
    assert to_ldm(diffusers + LAST) == f"diffusion_model.{ldm}{LAST}"
    assert to_diffusers(f"diffusion_model.{ldm}{LAST}") == diffusers + LAST


def test_a_name_that_is_no_attention_is_refused():
    with pytest.raises(ValueError, match="down_blocks.0.resnets.0"):
        to_ldm("down_blocks.0.resnets.0")


def test_people_change_the_pipeline_only_while_they_are_in():
    pipeline = tiny_pipeline()
    identity = train(pipeline)
    weights = {key: tensor.clone() for key, tensor in pipeline.unet.state_dict().items()}
    plain = People(pipeline, [identity], strength=0.0, kv_strength=0.0)
    before = sample(pipeline, plain, "a dog")[0]
    assert not np.array_equal(sample(pipeline, People(pipeline, [identity]), "a dog")[0], before)  # K/V act on all
    assert np.array_equal(sample(pipeline, plain, "a dog")[0], before)
    assert all(torch.equal(tensor, weights[key]) for key, tensor in pipeline.unet.state_dict().items())


def test_keys_and_values_act_as_changed_weights():
    pipeline = tiny_pipeline()
    people = People(pipeline, [train(pipeline)], kv_strength=0.7)
    latent, text = torch.randn(1, 4, 8, 8), torch.randn(1, 77, 768)
    with torch.no_grad():
        with people.kv():
            hooked = pipeline.unet(latent, 500, encoder_hidden_states=text).sample
        for name, layer in cross_attention_layers(pipeline.unet).items():
            layer.weight += people._deltas[name]
        changed = pipeline.unet(latent, 500, encoder_hidden_states=text).sample
    assert torch.allclose(hooked, changed, atol=1e-6)


@pytest.mark.parametrize("family", ["sd1", pytest.param("sdxl", marks=pytest.mark.slow)])
def test_the_change_of_keys_and_values_is_computed_once_for_all_steps_of_a_picture(family, monkeypatch):
    pipeline = tiny_pipeline(family)
    people = People(pipeline, [train(pipeline)])
    products, linear = [], torch.nn.functional.linear

    def counted(x, weight):
        products.append((weakref.ref(x), weight.dtype))
        return linear(x, weight)

    monkeypatch.setattr(kv, "linear", counted)
    pictures = sample(pipeline, people, "<alice> here", count=4, steps=5, batch_size=2)
    layers = len(people._layers)
    assert len(products) == 2 * layers > 0  # two batches
    gc.collect()
    assert all(text() is None for text, _ in products)
    monkeypatch.setattr(applied, "kv_added", lambda layers, deltas, kept: kv.kv_added(layers, deltas))
    products.clear()
    usual = sample(pipeline, people, "<alice> here", count=4, steps=5, batch_size=2)
    assert len(products) == 5 * 2 * layers
    assert all(np.array_equal(one, other) for one, other in zip(pictures, usual, strict=True))


def test_deltas_have_the_networks_precision_before_the_first_step():
    pipeline = tiny_pipeline().to(torch.bfloat16)
    people = People(pipeline, [train(pipeline)])
    assert {delta.dtype for delta in people._deltas.values()} == {torch.bfloat16}


def test_the_braces_and_the_name_are_the_same_person():
    pipeline = tiny_pipeline()
    people = People(pipeline, [train(pipeline)])
    contexts = [
        people.encode(prompt).context for prompt in ("{} as a pilot", "<alice> as a pilot", "<ALICE> as a pilot")
    ]
    assert torch.equal(contexts[0], contexts[1]) and torch.equal(contexts[1], contexts[2])
    assert not torch.equal(contexts[0], people.encode("alice as a pilot").context)


def test_several_people_add_their_differences():
    pipeline = tiny_pipeline()
    ann, bob = train(pipeline, "ann", seed=1), train(pipeline, "bob", seed=2)
    both = People(pipeline, [ann, bob])
    bare = People(pipeline, [ann, bob], strength=0.0).encode("<ann> and <bob>").context
    parts = [i.build_adapter().difference(bare, i.grounding.float()) for i in (ann, bob)]
    assert torch.allclose(both.encode("<ann> and <bob>").context, bare + sum(parts), atol=1e-6)
    alone = People(pipeline, [ann])
    assert torch.allclose(both.encode("<ann> here").context, alone.encode("<ann> here").context, atol=1e-6)


def test_long_prompts_take_more_chunks_and_the_adapter_acts_in_its_own():
    pipeline = tiny_pipeline()
    people = People(pipeline, [train(pipeline)])
    bare = People(pipeline, people.identities, strength=0.0)
    prompt = "x" * 74 + " <alice> yyy"
    context, plain = people.encode(prompt).context, bare.encode(prompt).context
    assert context.shape == (1, 154, 768)
    assert torch.equal(context[:, :77], plain[:, :77]) and not torch.equal(context[:, 77:], plain[:, 77:])
    assert len(sample(pipeline, people, prompt, negative="y" * 200)) == 1


def test_a_picture_depends_on_its_seed_alone():
    pipeline = tiny_pipeline()
    people = People(pipeline, [train(pipeline)])
    together = sample(pipeline, people, "{}", count=3, seed=5, batch_size=2)
    alone = sample(pipeline, people, "{}", count=1, seed=7)
    assert np.abs(together[2].astype(int) - alone[0]).max() <= 1


@pytest.mark.parametrize("scheduler", list(SCHEDULERS))
@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_samplers(scheduler, prediction):
    pipeline = tiny_pipeline(prediction=prediction)
    identity = make_identity(kv={}, prediction=prediction).to(torch.float16)
    (picture,) = sample(pipeline, People(pipeline, [identity]), "<alice>", scheduler=scheduler)
    assert picture.std() > 0


def test_what_does_not_fit_is_refused():
    pipeline = tiny_pipeline()
    with pytest.raises(
        BaseModelError, match="a base model of Stable Diffusion 2.x, on which <alice> was trained, got sd1"
    ):
        People(pipeline, [make_identity("sd2")])
    with pytest.raises(BaseModelError, match=r"attn2.to_k of shape \(320, 768\), got \(32, 768\)"):
        People(pipeline, [make_identity()])
    with pytest.raises(ConfigError, match="people of different names, got two of <alice>"):
        People(pipeline, [make_identity(kv={}), make_identity(kv={}, name="Alice")])
    with pytest.raises(ConfigError, match="width a number that 8 divides, got 500"):
        GenerateConfig(width=500)
    with pytest.raises(BaseModelError, match="people trained on one text encoder layer, got -2, -1"):
        People(pipeline, [make_identity(kv={}), make_identity(kv={}, name="bob", clip_layer=-2)])
    with pytest.raises(ConfigError, match="a clip_layer from -2 to -1, got -5"):
        DiffusersBackbone(pipeline, clip_layer=-5)
    with pytest.raises(ConfigError, match="photos of a size that 2 divides, got 16 × 15"):
        DiffusersBackbone(pipeline).encode_images(torch.zeros(1, 15, 16, 3))
    with pytest.raises(ConfigError, match="captions of at most 75 tokens, got 80"):
        backbone = DiffusersBackbone(pipeline)
        backbone.encode([backbone.read("a" * 80)])
    assert DiffusersBackbone(pipeline).prompt_length == 75


def test_nobody_is_the_base_model_alone():
    pipeline = tiny_pipeline()
    theirs, _ = pipeline.encode_prompt("a b c", "cpu", 1, False)
    assert torch.allclose(People(pipeline, []).encode("a b c").context, theirs, atol=1e-5)


def test_layers_of_the_text_encoder():
    backbone, deeper = DiffusersBackbone(tiny_pipeline()), DiffusersBackbone(tiny_pipeline(), clip_layer=-2)
    prompt, ids = [backbone.read("ab")], backbone.tokenize("ab")["clip_l"]
    assert not torch.allclose(backbone.encode(prompt).context, deeper.encode(prompt).context)
    own = tiny_pipeline().text_encoder(torch.tensor([[512, *ids] + [513] * (76 - len(ids))])).last_hidden_state
    assert torch.allclose(backbone.encode(prompt).context, own, atol=1e-6)


def test_prompts():
    assert split_prompt("photo of <alice>, happy", ["alice"]) == ["photo of ", 0, ", happy"]
    assert split_prompt("<Bob> and <alice>", ["alice", "bob"]) == [1, " and ", 0]
    assert split_prompt("<carol> <alice>", ["alice"]) == ["<carol> ", 0]
    assert split_prompt("", ["alice"]) == []
    assert unknown_names("<carol> and <alice> and {}", ["alice"]) == ["<carol>"]
    assert without_people("photo of <alice>  and {} in Paris") == "photo of and in Paris"
    with pytest.raises(ConfigError, match="Name each person: <alice>, <bob>"):
        split_prompt("{} here", ["alice", "bob"])


def test_short_words_stay_whole_and_long_ones_do_not():
    pipeline = tiny_pipeline()  # with a token a letter
    people = People(pipeline, [make_identity(kv={})])
    for words, chunks in [(["x" * 74, "yyy"], [74, 3]), (["x" * 74, "y" * 8], [75, 7])]:
        assert [len(chunk) for chunk in people._sequences("clip_l", [(" ".join(words), 1.0)])] == chunks


def test_schedules_of_checkpoints_in_one_file():
    assert prediction_of(stable_diffusion_schedule("v")) == "v"
    usual, zero = stable_diffusion_schedule("eps"), stable_diffusion_schedule("v", zero_terminal_snr=True)
    assert usual.alphas_cumprod[-1] > 1e-3 and zero.alphas_cumprod[-1] < 1e-6


def test_folders_and_files_of_half_precision_keep_text_encoders_single(tmp_path):
    tiny_pipeline().save_pretrained(tmp_path)
    pipeline = load_pipeline(tmp_path, dtype=torch.bfloat16)
    assert (pipeline.unet.dtype, pipeline.vae.dtype) == (torch.bfloat16, torch.bfloat16)
    weight = tiny_pipeline().text_encoder.get_input_embeddings().weight
    assert torch.equal(pipeline.text_encoder.get_input_embeddings().weight, weight)


def test_chunks_keep_groups_whole():
    assert in_chunks([], 3) == [[]]
    assert in_chunks(["a", "b", "cd", "e"], 3) == [["a", "b"], ["c", "d", "e"]]
    assert in_chunks(["abcd", "e"], 3) == [["a", "b", "c", "d"], ["e"]]
