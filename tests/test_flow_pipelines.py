"""Z-Image and FLUX.2 Klein on diffusers at tiny size: training, people in prompts, pictures."""

import json
import shutil
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from helpers import face
from idea_command import faces, run
from tiny_flow import SIDE, tiny_flow

from idea_core import Identity, TrainConfig, Trainer
from idea_core.errors import BaseModelError, ConfigError
from idea_core.headless.diffusers import FlowBackbone, GenerateConfig, backbone_of, load_pipeline, people_of
from idea_core.headless.diffusers.generate import conditions, sample
from idea_core.training import self_check
from idea_core.training.self_check import compare_slopes

FAMILIES = ["zimage", pytest.param("klein4b", marks=pytest.mark.slow)]  # 28 layers read 512 tokens
PROMPT = "a photo of {}, smiling"
NAMED = PROMPT.format("<ann>")
SIZES = {"height": SIDE, "width": SIDE}


@pytest.fixture(scope="module")
def pipelines():
    return cache(tiny_flow)


@pytest.fixture(params=FAMILIES)
def pipeline(request, pipelines):
    return pipelines(request.param)


@pytest.fixture(params=["zimage", "klein4b"])
def each_pipeline(request, pipelines):
    return pipelines(request.param)


def photos(count: int = 2) -> torch.Tensor:
    return torch.rand(count, SIDE, SIDE, 3, generator=torch.Generator().manual_seed(0))


def training(backbone, **settings) -> Trainer:
    config = TrainConfig(**{"steps": 2, "batch_size": 2, "kv_lr": 0.1, **settings})
    return Trainer.of(backbone, photos(), face(), config, ["brad pitt", "emma stone", "tom hanks"], [PROMPT])


def trained(pipeline, name: str = "ann", **settings) -> tuple[Identity, Trainer]:
    """A person in single precision, of random weights after some steps, and the training."""
    run = training(FlowBackbone(pipeline), **settings)
    run.run()
    generator = torch.Generator().manual_seed(len(name))
    for part in run.person.adapter.parameters():
        part.data += 0.2 * torch.randn(part.shape, generator=generator)
    for part in run.person.kv.parameters():
        part.data += torch.randn(part.shape, generator=generator)
    person, rows = run.person, run.person.rows
    exact = {
        "tokens": {key: tokens.detach().clone() for key, tokens in person.tokens.items()},
        "rows": None if rows is None else rows.detach().clone(),
        "grounding": person.grounding().detach().clone(),
        "adapter": {key: weight.detach().clone() for key, weight in person.adapter.applied_weights().items()},
        "kv": {key: weight.clone() for key, weight in person.kv.state_dict().items()},
    }
    return replace(run.identity(name), **exact), run


def latents(pipeline, people, prompt: str, guidance: float = 3.0, **settings) -> torch.Tensor:
    """What a prompt's image is before the VAE, with people."""
    inputs = [conditions(people, prompt)]
    settings = {"num_inference_steps": 2, "generator": [torch.Generator().manual_seed(4)], **SIZES, **settings}
    with torch.no_grad(), people.drawing(inputs):
        return pipeline(**people.arguments(inputs, guidance), output_type="latent", **settings).images


def weights(pipeline) -> dict[str, torch.Tensor]:
    parts = {"transformer": pipeline.transformer, "text": pipeline.text_encoder, "vae": pipeline.vae}
    return {
        f"{part}.{key}": tensor.clone() for part, model in parts.items() for key, tensor in model.state_dict().items()
    }


@pytest.mark.parametrize("prompt", ["a dog (on a hill:1.2)", ""])
def test_a_text_condition_is_the_pipelines_own(each_pipeline, prompt):
    backbone = FlowBackbone(each_pipeline)
    ours = backbone.encode([backbone.read(prompt)]).context[0]
    theirs = each_pipeline.encode_prompt(prompt)[0][0]
    assert ours.shape == theirs.shape and torch.allclose(ours, theirs, atol=1e-4)
    assert torch.equal(people_of(each_pipeline, []).encode(prompt).context[0], ours)


def test_a_persons_rows_need_nothing_that_comes_after(each_pipeline):
    backbone = FlowBackbone(each_pipeline)
    width = each_pipeline.text_encoder.config.hidden_size
    people = {"qwen3_4b": list(torch.randn(3, 2, width, generator=torch.Generator().manual_seed(1)))}
    whole, cut = (backbone.encode([backbone.read(PROMPT, every)] * 3, people) for every in (True, False))
    assert torch.equal(whole.places, cut.places) and int(cut.places[0, -1]) == cut.context.shape[1] - 1
    assert whole.context.shape[1] > cut.context.shape[1]
    kept = whole.context[:, : cut.context.shape[1]]
    assert torch.allclose(kept, cut.context, atol=1e-5) and not torch.allclose(kept[0], kept[1], atol=1e-2)


def test_images_without_people_are_the_pipelines_own(each_pipeline):
    settings = {"num_inference_steps": 3, "output_type": "latent", **SIZES}
    own = each_pipeline(
        prompt="a dog", guidance_scale=2.0, generator=torch.Generator().manual_seed(4), **settings
    ).images
    people = people_of(each_pipeline, [])
    guidance = 3.0 - people.how.unguided  # Z-Image's own 2 is 3 as others count
    ours = latents(each_pipeline, people, "a dog", guidance, num_inference_steps=3)
    assert ours.abs().max() > 0.1 and torch.allclose(ours, own, atol=1e-4)


def test_unguided_images_are_the_pipelines_own(pipeline):
    settings = {"num_inference_steps": 2, "output_type": "latent", **SIZES}
    people = people_of(pipeline, [])
    off = people.how.unguided
    own = pipeline(prompt="a dog", guidance_scale=off, generator=torch.Generator().manual_seed(4), **settings).images
    assert torch.allclose(latents(pipeline, people, "a dog", 1.0), own, atol=1e-4)


def sampled_loss(pipeline, people, run: Trainer, batch) -> float:
    """The loss of a batch as the pipeline's sampling sees it: a step from each noise level to 0."""
    backbone, before = run.backbone, pipeline.scheduler
    clean = run.dataset.buckets[0].latents.mean[batch.photos]
    noisy = backbone.schedule.add_noise(clean, batch.noise, batch.levels)
    pipeline.scheduler, errors = FlowMatchEulerDiscreteScheduler(), []
    try:
        for image, noise, mixed, sigma in zip(clean, batch.noise, noisy, batch.levels.tolist()):
            step = {"latents": mixed[None], "sigmas": [sigma], "num_inference_steps": 1}
            end = latents(pipeline, people, NAMED, 1.0, **step)
            if end.shape[1:] != mixed.shape:  # FLUX.2 gives them to the VAE
                end = backbone._images.scale.into(end, end).mean
            errors.append((((mixed - end[0]) / sigma) - (noise - image)).square().mean().item())
    finally:
        pipeline.scheduler = before
    return sum(errors) / len(errors)


SEEN = [{"space": "input"}, {"space": "output"}, {"kv_scope": "text"}, {"kv_scope": "whole"}]


@pytest.mark.parametrize("settings", SEEN, ids=lambda one: "-".join(one.values()))
def test_the_pipeline_sees_what_the_training_saw_and_stays(pipeline, settings):
    before = weights(pipeline)
    person, run = trained(pipeline, **settings)
    batch = run.sampler.draw()
    with torch.no_grad(), run.active():
        loss = run.loss(batch).item()
    people = people_of(pipeline, [person])
    assert abs(sampled_loss(pipeline, people, run, batch) - loss) <= 1e-5
    for without in ({"kv_strength": 0.0}, {"strength": 0.0}):
        assert abs(sampled_loss(pipeline, people_of(pipeline, [person], **without), run, batch) - loss) > 1e-5
    plain = latents(pipeline, people_of(pipeline, []), "a dog")
    same = torch.equal(latents(pipeline, people, "a dog"), plain)
    assert same != (person.kv_scope == "whole")  # as a LoRA acts on all prompts
    after = weights(pipeline)
    assert all(torch.equal(tensor, after[key]) for key, tensor in before.items())


def test_two_people_in_one_prompt_do_not_depend_on_their_order(pipeline):
    ann, bob = trained(pipeline)[0], trained(pipeline, "bo", seed=5)[0]
    prompt = "<ann> and <bo> on a bench"
    one, other = (latents(pipeline, people_of(pipeline, people), prompt) for people in ([ann, bob], [bob, ann]))
    assert torch.equal(one, other)
    alone = latents(pipeline, people_of(pipeline, [ann]), NAMED)
    assert torch.equal(latents(pipeline, people_of(pipeline, [ann, bob]), NAMED), alone)
    swapped = latents(pipeline, people_of(pipeline, [ann, bob]), "<bo> and <ann> on a bench")
    assert not torch.allclose(one, swapped, atol=1e-3)


def test_beside_other_people_an_adapter_acts_at_its_persons_own_rows(pipeline):
    ann, bob = trained(pipeline)[0], trained(pipeline, "bo", seed=5)[0]
    other = replace(ann, adapter={**ann.adapter, "gamma": torch.zeros(1)})

    def changed(prompt):
        texts = [people_of(pipeline, [one, bob]).encode(prompt) for one in (ann, other)]
        return (texts[0].context - texts[1].context).abs().amax(-1)[0] > 0, texts[0].marks[0].bool()

    rows, (rows_of_ann, _) = changed("<ann> and <bo> on a bench")
    assert torch.equal(rows, rows_of_ann)
    assert changed("<ann> on a bench")[0].all()


def test_people_in_a_batch_and_in_negative_prompts_keep_to_their_own_prompt(pipeline):
    people = people_of(pipeline, [trained(pipeline)[0]])
    config = GenerateConfig(steps=2, guidance=3.0, **SIZES)
    inputs = [conditions(people, prompt, "<ann>") for prompt in (NAMED, "a dog on a hill, running")]
    assert inputs[0]["negative_marks"].any() and not inputs[1]["marks"].any()
    together = [np.asarray(image, int) for image in sample(pipeline, people, inputs, [1, 2], config)]
    alone = [np.asarray(sample(pipeline, people, [one], [seed], config)[0], int) for one, seed in zip(inputs, (1, 2))]
    assert all(np.abs(one - other).max() <= 1 for one, other in zip(together, alone))


@pytest.mark.parametrize("space", ["input", "output"])
def test_gradients_are_right_and_the_same_when_computed_again(pipeline, space, monkeypatch):
    # Of Klein's 512 rows two hardly count: larger changes of the loss would need steps far beyond the rows' own size.
    monkeypatch.setattr(self_check, "_SHARES", (1e-5, 3e-6, 1e-6))
    gradients = []
    for checkpointing in (False, True):
        run = training(FlowBackbone(pipeline, gradient_checkpointing=checkpointing), space=space)
        batch = run.sampler.draw()
        with run.active():
            slopes = compare_slopes(run, batch.parts(1)[0])
            assert slopes.settled and slopes.measured[-1] == pytest.approx(slopes.gradient, rel=0.1)
            run.loss(batch).backward()
        gradients.append([part.grad.clone() for part in (*run.person.parameters(), *run.person.kv.parameters())
                          if part.grad is not None])  # fmt: skip
    FlowBackbone(pipeline)  # without checkpointing again
    assert len(gradients[0]) > 6
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(*gradients, strict=True))


def test_a_saved_pipeline_is_loaded_and_draws_the_same(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path)
    loaded = load_pipeline(tmp_path)
    people = people_of(pipeline, [])
    assert torch.equal(latents(loaded, people_of(loaded, []), "a dog"), latents(pipeline, people, "a dog"))
    assert load_pipeline(tmp_path, torch.bfloat16).text_encoder.dtype == torch.bfloat16
    with pytest.raises(BaseModelError, match="no prediction for a flow-matching model, got v"):
        load_pipeline(tmp_path, prediction="v")


def test_what_does_not_fit_is_refused():
    pipeline = tiny_flow("zimage")
    with pytest.raises(ConfigError, match="no clip_layer on Z-Image, got -3"):
        FlowBackbone(pipeline, -3)
    with pytest.raises(ConfigError, match="a size that 4 divides"):
        FlowBackbone(pipeline).encode_images(torch.zeros(1, 30, 32, 3))
    person, _ = trained(pipeline)
    other = tiny_flow("klein4b")
    with pytest.raises(BaseModelError, match="a base model of Z-Image"):
        people_of(other, [person])
    deeper = replace(person, kv={"diffusion_model.layers.9.attention.to_k.diff": torch.zeros(32, 32).half()})
    with pytest.raises(BaseModelError, match=r"layers\.9\.attention\.to_k of shape \(32, 32\), got none"):
        people_of(pipeline, [deeper])
    people_of(pipeline, [deeper], kv_strength=0.0)
    backbone = FlowBackbone(pipeline)
    with pytest.raises(ConfigError, match="at most 512 tokens"):
        backbone.encode([backbone.read("a" * 600)])
    other.text_encoder.config.hidden_size = 4096
    with pytest.raises(BaseModelError, match="text encoders of width"):
        backbone_of(other)


def test_the_command_trains_draws_and_compares_on_a_folder(studio, tmp_path):
    tiny_flow().save_pretrained(tmp_path / "model")
    model, size = ["--model", tmp_path / "model", "--device", "cpu"], ["--resolution", SIDE]
    photos = ["--photos", studio / "photos" / "alice", "--name", "alice", "--phrase", "tall man"]
    steps, output = ["--steps", "2", "--batch-size", "1"], tmp_path / "alice.safetensors"
    run("train", *model, *faces(studio), *photos, *steps, *size, "-o", output)
    person = Identity.load(output)
    assert person.base.title == "Z-Image" and person.prediction == "flow" and person.kv_scope == "person"
    drawing = ["--width", SIDE, "--height", SIDE, "--count", "2", "--save-dir", tmp_path / "images"]
    prompt = ["--identity", output, "--prompt", "<alice> at sea", "--steps", "2"]
    images = run("generate", *model, *prompt, *drawing, "--json")
    assert len(images["images"]) == 2
    shutil.copytree(studio / "photos" / "alice", tmp_path / "people" / "alice")
    for name, text in {"names": "tall man", "prompts": "a photo of {}"}.items():
        (tmp_path / f"{name}.txt").write_text(text)
    texts = ["--names", tmp_path / "names.txt", "--prompts", tmp_path / "prompts.txt", "--people", tmp_path / "people"]
    quick = ["--steps", "1", *size, "--sampling-steps", "1", "--count", "1", "--width", SIDE, "--height", SIDE]
    methods = ["--methods", "ti,id-ea"]
    run("compare", *model, *faces(studio), *texts, *quick, *methods, "-o", tmp_path / "comparison")
    results = json.loads((tmp_path / "comparison" / "comparison.json").read_text("utf-8"))
    assert [(one["method"], one.get("error")) for one in results["trials"]] == [("ti", None), ("id-ea", None)]
