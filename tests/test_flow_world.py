"""The world's flow-matching base model: its language, its lesson, its loss, and the pipeline that is saved."""

from functools import partial

import numpy as np
import pytest
import torch
from diffusers import ZImagePipeline

from idea_core.diffusion.schedule import FlowSchedule
from idea_core.families import BASE_MODELS
from idea_core.headless.diffusers import backbone_of
from idea_core.method.anchor import ROWS, names_basis
from world3d import captions, names, people, scenes, words
from world3d.flow import models, pairs, teach_text, tokenizer
from world3d.flow.loss import MULTIPLE, Batches, Loss
from world3d.latents import Pictures
from world3d.models import build_vae

PROMPTS = ["a photo of Alice Archer, smiling, in front of a red wall", ""]
WIDTH = 16


@pytest.fixture(scope="module")
def language():
    return tokenizer.build_tokenizer()


@pytest.fixture(scope="module")
def pipeline(language):
    torch.manual_seed(0)
    text_encoder, transformer = models.build_text_encoder(language, WIDTH, 2), models.build_transformer(WIDTH, 1)
    for parameter in transformer.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)  # so that it answers something
    return models.build_pipeline(language, text_encoder, transformer, build_vae()).to("cpu")


def test_names_have_two_to_four_tokens_and_other_words_one(language):
    def count(word: str) -> int:
        return len(language(f" {word}").input_ids)

    lengths = [count(person.name) for person in people.named_people()]
    assert set(lengths) == {2, 3, 4} and all(lengths.count(one) > 60 for one in (2, 3, 4))
    of_names = {word.lower() for word in (*names.FIRST_NAMES, *names.LAST_NAMES)}
    assert all(count(word) == 1 for word in words.words() if word.isalpha() and word not in of_names)


def test_a_prompt_is_read_in_the_chat_template(language):
    ids = tokenizer.tokens(language, PROMPTS)
    read = language.convert_ids_to_tokens(ids[0])
    assert read[:5] == ["<|im_start|>", "user", "Ċ", "a", "Ġphoto"]
    assert read[tokenizer.name_ends(ids, language)[0]] == "cher"
    assert tokenizer.lengths(ids, language).tolist() == [23, 8]
    assert language.convert_ids_to_tokens(ids[1])[3:8] == ["<|im_end|>", "Ċ", "<|im_start|>", "assistant", "Ċ"]


def pictures(language, count: int = 24) -> Pictures:
    """Latents of noise, with the captions of the world's first pictures."""
    shown = [scenes.Scene(background=number % 8, hat=number % 4) for number in range(count)]
    spoken = [text for number, scene in enumerate(shown) for text in captions.captions_of(number, scene)]
    full = [scene.caption(people.named_people()[number].name) for number, scene in enumerate(shown)]
    read = partial(tokenizer.tokens, language)
    return Pictures(
        torch.randn(count, 4, 24, 24, generator=torch.Generator().manual_seed(0)).half(),
        read(spoken).unflatten(0, (count, captions.CAPTIONS)),
        read(full),
        torch.arange(count),
        torch.tensor([[getattr(scene, key) for key in scenes.ASKED] for scene in shown]),
    )


def test_the_lesson_reads_looks_where_a_name_ends_and_the_scene_where_the_prompt_does(language):
    torch.manual_seed(0)
    text_encoder = models.build_text_encoder(language, WIDTH, 3).eval()
    texts = [
        "a photo of Alice Archer, in front of a red wall",
        "a photo of Adam Baldwin, in front of a striped red wall",
    ]
    ids = tokenizer.tokens(language, texts)
    rows, following = teach_text.reader(language)(text_encoder, ids)
    for number, text in enumerate(texts):
        said = language(f"<|im_start|>user\n{text.split(',')[0]}", return_tensors="pt").input_ids
        cut = text_encoder(said, output_hidden_states=True).hidden_states[-2][0, -1]
        whole = text_encoder(ids[number : number + 1], output_hidden_states=True).hidden_states[-2][0]
        assert torch.allclose(rows[number, 0], cut, atol=1e-5)
        assert torch.allclose(rows[number, 1], whole[tokenizer.lengths(ids, language)[number] - 1], atol=1e-5)
    logits = following / teach_text.NEXT_TOKEN
    assert logits.item() == pytest.approx(torch.tensor(float(len(language))).log().item(), rel=0.1)  # it knows nothing


def test_batches_hold_texts_of_one_padded_length_and_every_caption(language):
    data, generator = pictures(language), torch.Generator().manual_seed(0)
    batches = Batches(data, language)
    assert sum(map(len, batches.groups)) == 24 * captions.CAPTIONS
    shapes = set()
    for _ in range(32):
        latents, ids = batches.draw(6, generator)
        padded = (tokenizer.lengths(ids, language) - 1) // MULTIPLE
        assert len(latents) == len(ids) and len(padded.unique()) == 1
        shapes.add(tuple(latents.shape))
    assert shapes == {(6, 4, 24, 24), (4, 4, 24, 36)}  # of one person, and of two


def test_a_batch_of_two_people_shows_the_middles_of_their_pictures_and_names_them(language):
    data = pictures(language)
    latents, ids = Batches(data, language).pairs(9, torch.Generator().manual_seed(0))
    known, told = [person.name for person in people.named_people()], 0
    for latent, spoken in zip(latents, language.batch_decode(ids, skip_special_tokens=True)):
        if " photo of " not in spoken:
            continue
        both = spoken.split(" photo of ")[1].splitlines()[0].split(" and ")
        for side, name in zip(latent.split(18, dim=-1), both):
            assert torch.equal(side, data.latents[known.index(name), ..., 3:21].float())
        told += 1
    assert told > 4


def test_the_halves_of_a_picture_of_two_are_the_middles_of_both():
    left, right = np.random.default_rng(0).integers(0, 255, (2, 96, 96, 3), dtype=np.uint8)
    both = pairs.beside(*(torch.from_numpy(one).movedim(-1, 0) for one in (left, right))).movedim(0, -1).numpy()
    assert both.shape == (96, pairs.WIDTH, 3)
    for half, one in zip(pairs.halves(both), (left, right)):
        assert np.array_equal(half, pairs.middle(one)) and np.array_equal(half[:, 12:84], one[:, 12:84])


def test_training_reads_prompts_as_the_pipeline_does(language, pipeline):
    loss = Loss(language, pipeline.text_encoder, pipeline.transformer)
    ours = loss.conditions(tokenizer.tokens(language, PROMPTS))
    theirs, _ = pipeline.encode_prompt(list(PROMPTS), do_classifier_free_guidance=False)
    for one, other in zip(ours, theirs):
        assert one.shape == other.shape and torch.allclose(one, other, atol=1e-5)


def test_a_transformer_that_is_right_has_no_loss_and_draws_the_picture(language, pipeline):
    wanted = torch.randn(1, 4, 24, 24, generator=torch.Generator().manual_seed(1))

    def right(_module, inputs, _output):
        noisy, time = torch.stack(inputs[0])[:, :, 0], inputs[1].view(-1, 1, 1, 1)
        return (list(((wanted - noisy) / (1 - time))[:, :, None]),)

    hook = pipeline.transformer.register_forward_hook(right)
    try:
        ids = tokenizer.tokens(language, PROMPTS[:1])
        loss = Loss(language, pipeline.text_encoder, pipeline.transformer)
        assert loss(wanted, ids, torch.Generator().manual_seed(0)).item() < 1e-6
        sizes = {"height": scenes.SIZE, "width": scenes.SIZE, "num_inference_steps": 3, "guidance_scale": 0.0}
        drawn = pipeline(PROMPTS[0], output_type="latent", **sizes).images
        assert torch.allclose(drawn, wanted, atol=1e-4)
    finally:
        hook.remove()


def test_the_loss_falls_and_the_saved_pipeline_draws_the_same(tmp_path, language, pipeline):
    data, generator = pictures(language, 8), torch.Generator().manual_seed(5)
    loss = Loss(language, pipeline.text_encoder, pipeline.transformer)
    parameters = [*pipeline.text_encoder.parameters(), *pipeline.transformer.parameters()]
    optimizer, losses = torch.optim.AdamW(parameters, 2e-3), []
    for _ in range(8):
        value = loss(data.latents.float(), data.ids[:, 0], generator)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    assert sum(losses[-2:]) < 0.95 * sum(losses[:2])
    pipeline.save_pretrained(tmp_path)
    again = ZImagePipeline.from_pretrained(tmp_path)
    sizes = {"height": scenes.SIZE, "width": scenes.SIZE, "num_inference_steps": 2, "guidance_scale": 1.0}
    one, other = (
        part(PROMPTS[0], generator=torch.Generator().manual_seed(3), output_type="np", **sizes).images
        for part in (pipeline, again)
    )
    assert one.shape == (1, scenes.SIZE, scenes.SIZE, 3) and abs(one - other).max() < 1e-5


def test_the_pack_knows_the_worlds_pipeline(language):
    torch.manual_seed(0)
    text_encoder, transformer = models.build_text_encoder(language), models.build_transformer(layers=1)
    backbone = backbone_of(models.build_pipeline(language, text_encoder, transformer, build_vae()))
    base = BASE_MODELS[backbone.base_model]
    assert base.title == "the miniature flow-matching world"
    assert (base.context_length, base.resolution) == (tokenizer.LENGTH, scenes.SIZE)
    assert backbone.schedule == FlowSchedule(models.SHIFT)
    known = [person.name for person in people.named_people()]
    basis = names_basis(backbone, known, 2, 8, output=True)
    assert basis.axes[ROWS].shape == (2, 8, models.WIDTH)  # of names whose words are one token each
    latents = backbone.encode_images(torch.rand(1, scenes.SIZE, scenes.SIZE, 3))
    assert latents.mean.shape == (1, base.latent_channels, 24, 24)
